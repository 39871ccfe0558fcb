import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        x = torch.sigmoid(self.fc(x))  # first
        x = F.sigmoid(self.fc(x))  # second
        return F.softmax(self.fc(x), dim=-1)  # third
