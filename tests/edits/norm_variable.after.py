from torch import nn


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.net = nn.Sequential()
        for _ in range(3):
            layer = nn.Linear(width, width)
            nn.init.orthogonal_(layer.weight)
            self.net.append(nn.Sequential(layer, nn.BatchNorm1d(width)))
            self.net.append(nn.Tanh())

    def forward(self, x):
        return self.net(x)
