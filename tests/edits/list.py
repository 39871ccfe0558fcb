from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        pair = [nn.Linear(4, 4), nn.Sigmoid()]  # in pair
        self.net = nn.Sequential(*pair)

    def forward(self, x):
        return self.net(x)
