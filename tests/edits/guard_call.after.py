import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x):
        x = torch.log(self.a(x).relu().clamp(min=1e-6)) + torch.acos(x.tanh().clamp(-1 + 0.001, 1 - 0.001))  # function
        return x.square().sum(1, keepdim=True).clamp(min=1e-6).sqrt()  # method
