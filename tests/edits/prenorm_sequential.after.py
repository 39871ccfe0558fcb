import torch.nn as nn


class Residual(nn.Module):
    def __init__(self, inner, d):
        super().__init__()
        self.inner = inner
        self.norm = nn.RMSNorm(d)

    def forward(self, x):
        return x + self.inner(self.norm(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(*[Residual(nn.Linear(4, 4), 4) for _ in range(3)])
        self.head = nn.Linear(4, 2)
        self.final_norm = nn.RMSNorm(self.body[-1].norm.normalized_shape)

    def forward(self, x):
        return self.head(self.final_norm(self.body(x)))
