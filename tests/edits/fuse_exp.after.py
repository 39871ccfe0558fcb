import torch.nn as nn
from torch import exp, log


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        logits = self.fc(x)
        share = nn.functional.softmax(logits, dim=1)
        total = (x * 2).exp().sum(dim=1)
        return share + (x * 2).logsumexp(dim=1).unsqueeze(1)
