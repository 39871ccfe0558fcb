from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)
        nn.init.orthogonal_(self.a.weight)
        nn.init.orthogonal_(self.b.weight)
        self.b.bias.data.zero_()

    def forward(self, x):
        return self.b(self.a(x).relu())
