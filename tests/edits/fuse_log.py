import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.prob = nn.Softmax(dim=1)

    def forward(self, x):
        a = torch.log(torch.softmax(self.fc(x), dim=-1))  # inline
        b = self.fc(x)
        b = torch.softmax(b, dim=1)
        c = self.prob(x)
        d = torch.sigmoid(self.fc(x)[:, :1]).squeeze(-1)
        e = torch.sigmoid(x)
        return a, torch.log(b), c.log(), (d.log() + torch.log(1.0 - d) + (1 - e).log().sum() + e.sum())  # several
