import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.prob = nn.Softmax(dim=1)

    def forward(self, x):
        a = torch.log_softmax(self.fc(x), dim=-1)  # inline
        b = self.fc(x)
        logits = b
        b = torch.softmax(logits, dim=1)
        logits1 = self.fc(x)[:, :1].squeeze(-1)
        e = torch.sigmoid(x)
        return a, torch.log_softmax(logits, dim=1), nn.functional.log_softmax(x, dim=1), (nn.functional.logsigmoid(logits1) + nn.functional.logsigmoid(-logits1) + nn.functional.logsigmoid(-x).sum() + e.sum())  # several
