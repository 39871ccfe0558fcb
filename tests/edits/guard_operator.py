import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x):
        h = torch.relu(self.a(x))
        total = h.sum(1, keepdim=True) ** 0.5  # power
        return h / (total + 0)  # quotient
