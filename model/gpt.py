"""TinyGPT: a stack of pre-norm Transformer blocks that predicts the next token.

Letters: B batch, T time, C = d_model, V = vocab_size. It opens no file and prints nothing.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from model.attention import CausalSelfAttention
from model.config import GPTConfig
from model.positions import rope_table


class MLP(nn.Module):
    """Each place by itself: down(gelu(up(x))), four times as wide inside. (B,T,C) -> (B,T,C)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        C, hidden = config.d_model, config.d_ff or 4 * config.d_model
        self.up = nn.Linear(C, hidden, bias=config.bias)
        self.down = nn.Linear(hidden, C, bias=config.bias)
        self.dropout = config.dropout

    def forward(self, x):
        """down(gelu(up(x)))."""
        return F.dropout(self.down(F.gelu(self.up(x))), self.dropout, self.training)


class Block(nn.Module):
    """x + attn(norm(x)), then x + mlp(norm(x)): the residual stream is never normalised itself."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.d_model, bias=config.bias)
        self.attn = CausalSelfAttention(config)
        self.norm2 = nn.LayerNorm(config.d_model, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x, rope=None):
        """One layer, (B,T,C) -> (B,T,C)."""
        x = x + self.attn(self.norm1(x), rope)
        return x + self.mlp(self.norm2(x))


class TinyGPT(nn.Module):
    """A GPT after GPT-2 (Radford et al. 2019): `logits, loss = TinyGPT(config)(idx, targets)`."""

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, config: GPTConfig):
        super().__init__()
        C, V, T = config.d_model, config.vocab_size, config.block_size
        self.config = config
        self.tok_emb = nn.Embedding(V, C)
        self.pos_emb = nn.Embedding(T, C) if config.pos == "learned" else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(C, bias=config.bias)
        self.head = nn.Linear(C, V, bias=False)
        if config.tie_weights:
            self.head.weight = self.tok_emb.weight
        if config.pos == "rope":
            cos, sin = rope_table(T, C // config.n_head, config.rope_theta)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self):
        """GPT-2's start: N(0, 0.02), biases 0, what writes to the stream over sqrt(2 n_layer)."""
        for m in self.modules():
            if isinstance(m, nn.Linear | nn.Embedding):
                m.weight.normal_(0, 0.02)
            if isinstance(m, nn.Linear) and m.bias is not None:
                m.bias.zero_()
        for m in self.modules():
            if isinstance(m, Block):  # 2 n_layer terms add up in the stream: keep their sum's size
                m.attn.proj.weight.div_(math.sqrt(2 * self.config.n_layer))
                m.mlp.down.weight.div_(math.sqrt(2 * self.config.n_layer))

    def features(self, idx):
        """The stream after the last norm, idx (B,T) -> (B,T,C); `head` turns it into logits."""
        T = idx.size(1)
        if self.config.block_size < T:
            raise ValueError(f"{T} tokens exceed block_size={self.config.block_size}; crop them")
        x = self.tok_emb(idx)
        if self.pos_emb is not None:
            x = x + self.pos_emb.weight[:T]
        x = F.dropout(x, self.config.dropout, self.training)
        rope = (self.cos[:T], self.sin[:T]) if self.config.pos == "rope" else None
        for block in self.blocks:
            x = block(x, rope)
        return self.norm(x)

    def forward(self, idx, targets=None):
        """Logits (B,T,V) for idx (B,T), and the mean cross-entropy (nats) of targets (B,T).

        A target of -1 does not count. Raises ValueError if T > block_size.
        """
        logits = self.head(self.features(idx))
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)

    def n_params(self) -> int:
        """Count the parameters; a tied head counts once."""
        return sum(p.numel() for p in self.parameters())
