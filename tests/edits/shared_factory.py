from torch import nn


def fc(n_in, n_out):
    return nn.Sequential(nn.Linear(n_in, n_out), nn.ReLU())


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = fc(4, 8)
        self.b = fc(8, 4)

    def forward(self, x):
        return self.b(self.a(x))
