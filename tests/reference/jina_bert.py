"""JinaBERT in plain torch, which transformers does not have: the model of jina-embeddings-v2.

What is computed, and the names of tensors, are those of `modeling_bert.py` in the Hub repositories
jinaai/jina-bert-implementation and (the model for code, `jina-embeddings-v2-base-code`)
jinaai/jina-bert-v2-qk-post-norm: the code that `auto_map` in the models' config.json names. The
slopes follow https://github.com/ofirpress/attention_with_linear_biases, as theirs do.
"""

import math
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from transformers import BertConfig, PreTrainedModel


def slopes(heads: int) -> list[float]:
    """Return the slope of each head."""
    if heads & (heads - 1) == 0:
        start = 2 ** -(2 ** -(math.log2(heads) - 3))
        return [start ** (1 + head) for head in range(heads)]
    below = 2 ** int(math.log2(heads))
    return slopes(below) + slopes(2 * below)[::2][: heads - below]


class Embeddings(nn.Module):
    """Words and token types; there are no positions."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        """Embed: `(B, T)` -> `(B, T, D)`."""
        types = self.token_type_embeddings(torch.zeros_like(ids))
        return self.LayerNorm(self.word_embeddings(ids) + types)


class SelfAttention(nn.Module):
    """Softmax of scores, from which distances are subtracted head by head."""

    def __init__(self, config: BertConfig, *, normed: bool) -> None:
        super().__init__()
        size = config.hidden_size
        self.heads = config.num_attention_heads
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        if normed:
            self.layer_norm_q = nn.LayerNorm(size, config.layer_norm_eps)
            self.layer_norm_k = nn.LayerNorm(size, config.layer_norm_eps)
        self.normed = normed

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Attend: `(B, T, D)` stays; `mask` `(B, T)` is 0 for padding."""
        query, key = self.query(x), self.key(x)
        if self.normed:
            query, key = self.layer_norm_q(query), self.layer_norm_k(key)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (query, key, self.value(x))
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        place = torch.arange(x.shape[1])
        distances = (place[:, None] - place).abs()
        scores = scores - torch.tensor(slopes(self.heads))[:, None, None] * distances
        scores = scores.masked_fill(mask[:, None, None] == 0, -torch.inf)
        return (scores.softmax(-1) @ value).transpose(1, 2).flatten(-2)


class Output(nn.Module):
    """A linear layer, added to what attention was given, and a norm."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)


class GatedFirst(nn.Module):
    """The feed-forward layer: the first half of the product is the gate. It has its own norm."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.gated_layers = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.wo = nn.Linear(config.intermediate_size, config.hidden_size)
        self.layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.act = {"geglu": nn.GELU(), "reglu": nn.ReLU()}[config.feed_forward_type]

    def forward(self, x: Tensor) -> Tensor:
        """Apply and normalize: `(B, T, D)` stays."""
        gate, values = self.gated_layers(x).chunk(2, dim=-1)
        return self.layernorm(self.wo(self.act(gate) * values) + x)


class GatedSecond(nn.Module):
    """The feed-forward layer of the model for code: the second half is the gate."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        wide = config.intermediate_size
        self.up_gated_layer = nn.Linear(config.hidden_size, 2 * wide, bias=False)
        self.down_layer = nn.Linear(wide, config.hidden_size)
        self.act = {"geglu": nn.GELU(), "reglu": nn.ReLU()}[config.feed_forward_type]

    def forward(self, x: Tensor) -> Tensor:
        """Apply: `(B, T, D)` stays."""
        values, gate = self.up_gated_layer(x).chunk(2, dim=-1)
        return self.down_layer(values * self.act(gate))


class Layer(nn.Module):
    """A layer; the model for code adds the layer's input once more behind attention's own norm."""

    def __init__(self, config: BertConfig, *, normed: bool) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": SelfAttention(config, normed=normed), "output": Output(config)}
        )
        self.mlp = GatedSecond(config) if normed else GatedFirst(config)
        if normed:
            self.layer_norm_1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
            self.layer_norm_2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.normed = normed

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Apply: `(B, T, D)` stays; `mask` `(B, T)` is 0 for padding."""
        attended = self.attention["self"](x, mask)
        output = self.attention["output"]
        attended = output.LayerNorm(output.dense(attended) + x)
        if not self.normed:
            return self.mlp(attended)
        attended = self.layer_norm_1(x + attended)
        return self.layer_norm_2(attended + self.mlp(attended))


class JinaBertModel(PreTrainedModel):
    """The model; its config.json says `bert`, and which of the two it is in `auto_map`."""

    config_class = BertConfig

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        normed = "qk-post-norm" in config.auto_map["AutoModel"]
        self.embeddings = Embeddings(config)
        layers = [Layer(config, normed=normed) for _ in range(config.num_hidden_layers)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: object) -> SimpleNamespace:
        """Return the token vectors, `(B, T, D)`, as `last_hidden_state`."""
        x = self.embeddings(input_ids)
        for layer in self.encoder["layer"]:
            x = layer(x, attention_mask)
        return SimpleNamespace(last_hidden_state=x)
