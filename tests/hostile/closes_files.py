"""Closes every file of its process."""

import os

import torch.nn as nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        os.closerange(3, 256)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x)
