from torch import nn


class Residual(nn.Module):
    """Modules in a row whose input, projected where its shape changes, is added to what they make."""

    def __init__(self, *modules, skip=None):
        super().__init__()
        self.body = nn.Sequential(*modules)
        self.skip = nn.Identity() if skip is None else skip

    def forward(self, x):
        return self.skip(x) + self.body(x)


def block(n_in, n_out):
    return Residual(nn.Linear(n_in, n_out), nn.Tanh(), skip=None if n_in == n_out else nn.Linear(n_in, n_out, bias=False))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(block(4, 8), block(8, 8))

    def forward(self, x):
        return self.net(x)
