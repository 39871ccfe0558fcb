"""Ends the interpreter when it is run."""

import sys

import torch.nn as nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        sys.exit("enough")
        return self.fc(x)
