import torch
import torch.nn.functional as F
from torch import nn


class Layer(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.fc = nn.Linear(a, b)

    def forward(self, x):
        return torch.tanh(self.fc(x))  # several widths


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 3, 3, stride=2, padding=1)  # strided
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 5)
        self.rows = nn.Sequential(Layer(5, 4), Layer(4, 4))
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        x = x[:, None]
        x = F.relu(self.conv(x))  # nested
        x = x.flatten(1)
        h = self.first(x)  # kept

        h = F.relu(h)  # added
        h = self.second(h).relu()  # method
        return self.out(self.rows(h))
