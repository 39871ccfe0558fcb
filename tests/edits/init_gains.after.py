from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4, bias=i > 0) for i in range(10)])
        self.head = nn.Linear(4, 2)
        for layer in self.layers:
            nn.init.normal_(layer.weight, std=0.01)
        self._init_weights()

    def _init_weights(self):
        gains = (
            1, 1.03, 1.07, 1.1, 1.13, 1.17, 1.2, 1.23,
            1.27, 1.3,
        )
        layers = [module for module in self.modules() if isinstance(module, nn.Linear) and module is not self.head]
        for module, gain in zip(layers, gains):
            nn.init.orthogonal_(module.weight, gain=gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).tanh()
        return self.head(x)
