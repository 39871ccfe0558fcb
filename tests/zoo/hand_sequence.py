"""Nets on sequences and ids."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from hand import net
from torch import nn


@net(x="int64:2")
class LSTMClassifier(nn.Module):
    def __init__(self, vocabulary=120, embedding=16, hidden=24, classes=2):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, 2, batch_first=True, bidirectional=True, dropout=0.1)
        self.classifier = nn.Linear(2 * hidden, classes)

    def forward(self, x):
        states, _ = self.lstm(self.embedding(x))
        return self.classifier(states[:, -1])


@net(x="float32:3")
class GRUNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(9, 16, batch_first=True)
        self.out = nn.Linear(16, 1)

    def forward(self, x, h=None):
        if h is None:
            h = torch.zeros(1, x.size(0), 16)
        states, h = self.gru(x, h)
        return self.out(states[:, -1, :])


@net(x="float32:3")
class VanillaRNN(nn.Module):
    """Time first, as torch's default has it."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(9, 16, nonlinearity="tanh")
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        _, h = self.rnn(x)
        return self.out(h[-1])


@net(x="float32:3")
class LSTMCellLoop(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(9, 16)
        self.out = nn.Linear(16, 1)

    def forward(self, x):
        h = x.new_zeros(x.size(0), 16)
        c = x.new_zeros(x.size(0), 16)
        for t in range(x.size(1)):
            h, c = self.cell(x[:, t], (h, c))
        return self.out(h)


@net(x="int64:2", lengths="int64:1")
class PackedLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(60, 8)
        self.lstm = nn.LSTM(8, 16, batch_first=True)
        self.out = nn.Linear(16, 2)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(self.embedding(x), lengths.cpu(), batch_first=True)
        states, (h, _) = self.lstm(packed)
        states, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True)
        return self.out(h[-1] + states[:, 0])


@net(dense="float32:2", tokens="int64:2")
class MultiInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(7, 8)
        self.table = nn.Embedding(40, 8)
        self.out = nn.Linear(16, 1)

    def forward(self, dense, tokens):
        joined = torch.cat([self.dense(dense).relu(), self.table(tokens).mean(dim=1)], dim=-1)
        return torch.sigmoid(self.out(joined))


@net(x="int64:2")
class TiedLM(nn.Module):
    """Positions for nine steps, and the output weight is the input's."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(70, 16)
        self.positions = nn.Parameter(torch.zeros(1, 9, 16))
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu", norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 70, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(self.encoder(self.embedding(x) * math.sqrt(16) + self.positions))


class Block(nn.Module):
    def __init__(self, width, heads, longest):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.register_buffer("visible", torch.ones(longest, longest).tril().view(1, 1, longest, longest))

    def forward(self, x):
        b, t, c = x.size()
        q, k, v = self.qkv(self.norm1(x)).split(c, dim=2)
        q, k, v = (z.view(b, t, self.heads, c // self.heads).transpose(1, 2) for z in (q, k, v))
        scores = q @ k.transpose(-2, -1) / math.sqrt(c // self.heads)
        scores = scores.masked_fill(self.visible[:, :, :t, :t] == 0, float("-inf"))
        mixed = (F.softmax(scores, dim=-1) @ v).transpose(1, 2).contiguous().view(b, t, c)
        x = x + self.proj(mixed)
        return x + self.mlp(self.norm2(x))


@net(idx="int64:2")
class NanoGPT(nn.Module):
    def __init__(self, vocabulary=80, width=32, longest=12):
        super().__init__()
        self.longest = longest
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(longest, width)
        self.blocks = nn.ModuleList(Block(width, 4, longest) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.tokens.weight = self.head.weight

    def forward(self, idx, targets=None):
        _, t = idx.size()
        assert t <= self.longest, f"Cannot forward sequence of length {t}, block size is only {self.longest}"
        x = self.tokens(idx) + self.positions(torch.arange(t))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        if targets is None:
            return logits[:, [-1], :], None
        return logits, F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))


@net(src="float32:3", tgt="float32:3")
class NNTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.transformer = nn.Transformer(16, 2, 1, 1, 32, batch_first=True)

    def forward(self, src, tgt):
        causal = nn.Transformer.generate_square_subsequent_mask(tgt.size(1))
        return self.transformer(src, tgt, tgt_mask=causal)


@net(x="float32:3")
class MHANet(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.norm = nn.LayerNorm(16)

    def forward(self, x):
        mixed, weights = self.attention(x, x, x)
        return self.norm(x + mixed), weights


@net(x="float32:3")
class WaveNetish(nn.Module):
    def __init__(self, channels=8, layers=4):
        super().__init__()
        self.first = nn.Conv1d(1, channels, 1)
        self.gates = nn.ModuleList(
            nn.Conv1d(channels, 2 * channels, 2, dilation=2**i, padding=2**i) for i in range(layers)
        )
        self.skips = nn.ModuleList(nn.Conv1d(channels, channels, 1) for _ in range(layers))
        self.last = nn.Conv1d(channels, 1, 1)

    def forward(self, x):
        x = self.first(x)
        total = 0
        for gate, skip in zip(self.gates, self.skips, strict=True):
            a, b = gate(x)[..., : x.shape[-1]].chunk(2, dim=1)
            z = torch.tanh(a) * torch.sigmoid(b)
            total = total + z
            x = x + skip(z)
        return self.last(F.relu(total))
