"""Takes memory until it is stopped."""

import time

import torch.nn as nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.held = []
        while True:
            self.held.append(b"x" * 2**25)
            time.sleep(0.01)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x)
