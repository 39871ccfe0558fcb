"""Writes a lot to stdout, past sys.stdout too."""

import os
import sys

import torch.nn as nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        print("noise " * 1000)
        os.write(1, b"raw noise\n" * 1000)
        sys.__stdout__.write("more noise\n")
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        print("forward")
        return self.fc(x)
