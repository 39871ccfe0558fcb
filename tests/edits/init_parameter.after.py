import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width))
        self.rnn = nn.LSTM(4, width, batch_first=True)
        self._init_weights()

    def _init_weights(self):
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        nn.init.orthogonal_(self.rnn.weight_ih_l0)
        for gate in self.rnn.weight_hh_l0.data.chunk(4):
            nn.init.orthogonal_(gate)
        nn.init.zeros_(self.rnn.bias_ih_l0)
        nn.init.constant_(self.rnn.bias_ih_l0.data[4:8], 1)
        nn.init.zeros_(self.rnn.bias_hh_l0)

    def forward(self, x):
        return self.rnn(x[:, None] @ self.weight)[0]
