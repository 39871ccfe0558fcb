from torch import nn

net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))  # the model
for module in net.modules():
    if isinstance(module, nn.Linear) and module is not net[2]:
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)


def Net():
    return net
