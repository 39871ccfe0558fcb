"""Asks the user."""

import torch.nn as nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.size = int(input("how many layers? "))
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x)
