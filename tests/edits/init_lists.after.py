from torch import nn


class Net(nn.Module):
    def __init__(self, depth=9):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.up = nn.ModuleList([nn.Linear(4, 8) for _ in range(depth)])
        self.down = nn.ModuleList(
            [nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4, bias=False)) for _ in range(depth)]
        )
        self.head = nn.Linear(4, 2)
        self._init_weights()

    def _init_weights(self):
        for layer in self.down:
            nn.init.xavier_normal_(layer[0].weight)
            nn.init.zeros_(layer[0].bias)
            nn.init.xavier_normal_(layer[-1].weight)
        nn.init.xavier_normal_(self.first.weight)
        nn.init.zeros_(self.first.bias)
        for layer in self.up:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        x = self.first(x)
        for up, down in zip(self.up, self.down):
            x = x + down(up(x).relu())
        return self.head(x)
