"""Reads address zero."""

import ctypes

import torch.nn as nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        ctypes.string_at(0)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x)
