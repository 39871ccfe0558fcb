"""Tanh layers with weights of unit variance: nearly all units sit at their bounds."""

import torch
from torch import nn


class Controller(nn.Module):
    def __init__(self, states=10, actions=3, width=128):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(states, width), nn.Linear(width, width)
        self.fc3, self.out = nn.Linear(width, width), nn.Linear(width, actions)
        for layer in (self.fc1, self.fc2, self.fc3, self.out):
            nn.init.normal_(layer.weight, std=1.0)
            nn.init.zeros_(layer.bias)

    def forward(self, state):
        h = torch.tanh(self.fc1(state))
        h = torch.tanh(self.fc2(h))
        h = torch.tanh(self.fc3(h))
        return torch.tanh(self.out(h))
