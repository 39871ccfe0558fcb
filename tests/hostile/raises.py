"""Raises, in words that are not ASCII."""

import torch.nn as nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        raise ValueError("größe 形 🔥 passt nicht")
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x)
