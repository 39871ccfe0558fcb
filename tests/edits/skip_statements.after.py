import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x):
        # the block
        skip = x
        h = self.a(x)
        h = skip + F.relu(h)
        return h
