import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        x = F.elu(self.fc(x))  # first
        x = F.elu(self.fc(x))  # second
        return F.relu(self.fc(x))  # third
