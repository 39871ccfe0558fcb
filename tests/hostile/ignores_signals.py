"""Asks not to be interrupted."""

import signal

import torch.nn as nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x)
