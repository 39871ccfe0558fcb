"""Needs what is not installed."""

import a_library_that_is_not_installed

import torch.nn as nn


class Net(a_library_that_is_not_installed.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x)
