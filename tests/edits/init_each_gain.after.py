from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
        self._init_weights()

    def _init_weights(self):
        for module in self.modules():
            if isinstance(module, nn.Linear) and module is not self.b and module is not self.c:
                nn.init.orthogonal_(module.weight, gain=1.1)
                nn.init.zeros_(module.bias)
        nn.init.orthogonal_(self.b.weight, gain=1.3)
        nn.init.zeros_(self.b.bias)
        nn.init.orthogonal_(self.c.weight, gain=2)
        nn.init.zeros_(self.c.bias)

    def forward(self, x):
        return self.c(self.b(self.a(x).tanh()).tanh())
