import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x):
        h = torch.relu(self.a(x))
        total = h.sum(1, keepdim=True).clamp(min=1e-6) ** 0.5  # power
        return h / (total + 0).clamp(min=1e-6)  # quotient
