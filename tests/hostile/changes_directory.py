"""Leaves the folder that it is run in."""

import os

import torch.nn as nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        os.chdir("/")
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x)
