"""A plain recurrent net whose recurrent weights are three times what keeps the state from exploding."""

from torch import nn


class Gestures(nn.Module):
    def __init__(self, channels=4, width=48, classes=5):
        super().__init__()
        self.rnn = nn.RNN(channels, width, batch_first=True, nonlinearity="relu")
        nn.init.normal_(self.rnn.weight_hh_l0, std=3.0 * width**-0.5)
        self.head = nn.Linear(width, classes)

    def forward(self, moves):
        states, _ = self.rnn(moves)
        return self.head(states[:, -1])
