from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8)
        self.encoder = nn.TransformerEncoder(layer, 5, enable_nested_tensor=False)
        self.first = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)
        self._init_weights()

    def _init_weights(self):
        for param in (self.encoder.layers[0].self_attn.in_proj_weight, self.encoder.layers[1].self_attn.in_proj_weight, self.encoder.layers[2].self_attn.in_proj_weight, self.encoder.layers[3].self_attn.in_proj_weight, self.encoder.layers[4].self_attn.in_proj_weight):
            nn.init.xavier_normal_(param)
        for param in (self.encoder.layers[0].self_attn.out_proj.weight, self.encoder.layers[1].self_attn.out_proj.weight, self.encoder.layers[2].self_attn.out_proj.weight, self.encoder.layers[3].self_attn.out_proj.weight, self.encoder.layers[4].self_attn.out_proj.weight):
            nn.init.xavier_normal_(param)
        for param in (self.encoder.layers[0].linear1.weight, self.encoder.layers[1].linear1.weight, self.encoder.layers[2].linear1.weight, self.encoder.layers[3].linear1.weight, self.encoder.layers[4].linear1.weight):
            nn.init.xavier_normal_(param)
        for param in (self.encoder.layers[0].linear2.weight, self.encoder.layers[1].linear2.weight, self.encoder.layers[2].linear2.weight, self.encoder.layers[3].linear2.weight, self.encoder.layers[4].linear2.weight):
            nn.init.xavier_normal_(param)
        nn.init.xavier_normal_(self.first.weight)

    def forward(self, x):
        return self.head(self.encoder(self.first(x)[:, None]))[:, 0]
