import torch.nn as nn
from torch import exp, log


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        e = exp(self.fc(x))
        share = e / e.sum(-1, keepdim=True)
        total = (x * 2).exp().sum(dim=1)
        return share + log(total).unsqueeze(1)
