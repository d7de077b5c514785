"""TinyGPT: a stack of Transformer blocks that predicts the next token.

Letters: B batch, T time, C = d_model, V = vocab_size. It opens no file and prints nothing.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from model.attention import CausalSelfAttention
from model.config import GPTConfig
from model.loss import head_loss
from model.norm import Norm
from model.positions import rope_table, sinusoid


def relu2(x):
    """max(0, x)^2 (Primer, So et al. 2021)."""
    return F.relu(x).square()


ACT: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": F.gelu,  # x Phi(x)
    "gelu_tanh": partial(F.gelu, approximate="tanh"),  # GPT-2's own, by tanh
    "relu": F.relu,
    "relu2": relu2,
    "swiglu": F.silu,  # x sigmoid(x)
    "geglu": F.gelu,
}


class MLP(nn.Module):
    """Each place by itself, wider inside, gated or not (Shazeer 2020). (B,T,C) -> (B,T,C)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        C, hidden, self.dropout = config.d_model, config.hidden, config.dropout
        self.act = ACT[config.mlp]
        self.gate = nn.Linear(C, hidden, bias=config.bias) if config.gated else None
        self.up = nn.Linear(C, hidden, bias=config.bias)
        self.down = nn.Linear(hidden, C, bias=config.bias)

    def forward(self, x):
        """down(act(up(x))), or gated down(act(gate(x)) * up(x))."""
        x = self.act(self.up(x)) if self.gate is None else self.act(self.gate(x)) * self.up(x)
        x = self.down(x)
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class Block(nn.Module):
    """Attention, then MLP, each added to the residual stream. (B,T,C) -> (B,T,C)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        shape = config.d_model, config.norm, config.norm_eps, config.bias
        self.post = config.norm_at == "post"
        self.norm1 = Norm(*shape)
        self.attn = CausalSelfAttention(config)
        self.norm2 = Norm(*shape)
        self.mlp = MLP(config)

    def forward(self, x, rope=None, past=None):
        """Norm before each sublayer (GPT-2), or after each sum (Attention Is All You Need)."""
        if self.post:
            x = self.norm1(x + self.attn(x, rope, past))
            return self.norm2(x + self.mlp(x))
        x = x + self.attn(self.norm1(x), rope, past)
        return x + self.mlp(self.norm2(x))


class TinyGPT(nn.Module):
    """A GPT after GPT-2 (Radford et al. 2019): `logits, loss = TinyGPT(config)(idx, targets)`.

    Set `recompute` to compute each block's activations again in the backward pass instead of
    keeping them: the same gradients in less memory, for a third more work (Chen et al. 2016).
    """

    cos: torch.Tensor
    sin: torch.Tensor
    wave: torch.Tensor

    def __init__(self, config: GPTConfig):
        super().__init__()
        C, V, T = config.d_model, config.vocab_size, config.block_size
        self.config, self.recompute = config, False
        self.tok_emb = nn.Embedding(V, C)
        self.pos_emb = nn.Embedding(T, C) if config.pos == "learned" else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        pre = config.norm_at == "pre"  # a post-norm block ends in a norm of its own
        self.norm = Norm(C, config.norm, config.norm_eps, config.bias) if pre else nn.Identity()
        self.head = nn.Linear(C, V, bias=False)
        if config.tie_weights:
            self.head.weight = self.tok_emb.weight
        if config.pos == "rope":
            cos, sin = rope_table(T, C // config.n_head, config.rope_theta)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        if config.pos == "sinusoidal":
            self.register_buffer("wave", sinusoid(T, C), persistent=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self):
        """GPT-2's start: N(0, 0.02), biases 0, what writes to the stream over sqrt(2 n_layer).

        With zero_init that is 0: each block starts as the identity (Fixup, Zhang et al. 2019).
        """
        c = self.config
        for m in self.modules():
            if isinstance(m, nn.Linear | nn.Embedding):
                m.weight.normal_(0, c.emb_std if m.weight is self.tok_emb.weight else 0.02)
            if isinstance(m, nn.Linear) and m.bias is not None:
                m.bias.zero_()
        for m in self.modules():
            if isinstance(m, Block):  # 2 n_layer terms add up in the stream: keep their sum's size
                for weight in (m.attn.proj.weight, m.mlp.down.weight):
                    weight.zero_() if c.zero_init else weight.div_(math.sqrt(2 * c.n_layer))

    def features(self, idx, cache=None):
        """The stream after the last norm, idx (B,T) -> (B,T,C); `head` turns it into logits.

        With a KVCache, idx goes on from the tokens that it holds, and is held from then on. Raises
        ValueError for more than block_size tokens, unless the config slides, or a cache of other B.
        """
        T = idx.size(1)
        if self.config.block_size < T and not self.config.slides:
            raise ValueError(f"{T} tokens exceed block_size={self.config.block_size}; crop them")
        if cache is None:
            return self.stream(idx, slice(T))
        x = self.stream(idx, cache.open(*idx.shape), cache.layers)
        cache.advance(T)
        return x

    def stream(self, idx, place, layers=None):
        """The work of `features`: tokens at these places, a slice, or (B,1) where rows differ.

        layers, of a cache, hold what each block's attention has seen before (`model.cache.Past`).
        """
        x = self.tok_emb(idx)
        if self.pos_emb is not None:
            x = x + self.pos_emb.weight[place]
        if self.config.pos == "sinusoidal":
            x = math.sqrt(x.size(-1)) * x + self.wave[place]  # section 3.4: or the waves drown it
        x = F.dropout(x, self.config.dropout, self.training)
        rope = self.angles(idx.size(1), place) if self.config.pos == "rope" else None
        again = self.recompute and self.training
        for block, past in zip(self.blocks, layers or [None] * len(self.blocks), strict=True):
            x = checkpoint(block, x, rope, use_reentrant=False) if again else block(x, rope, past)
        return self.norm(x)

    def angles(self, T, place):
        """RoPE's cosines and sines at these places, to turn (B,H,T,D): (1,T,D/2) or (B,1,1,D/2)."""
        c, cos, sin = self.config, self.cos, self.sin
        if c.block_size < T:  # where the model slides
            longer = rope_table(T, c.d_model // c.n_head, c.rope_theta)
            cos, sin = (table.to(self.cos) for table in longer)
        return cos[place].unsqueeze(-3), sin[place].unsqueeze(-3)

    def forward(self, idx, targets=None, *, loss_only=False):
        """Logits (B,T,V) for idx (B,T), and the mean cross-entropy (nats) of targets (B,T).

        A target of -1 does not count. With loss_only the logits are None, and need not all be in
        memory at once (`head_loss`). Raises ValueError if T > block_size.
        """
        x = self.features(idx)
        if loss_only:
            return None, head_loss(x.flatten(0, 1), self.head.weight, targets.flatten())
        logits = self.head(x)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)

    def n_params(self) -> int:
        """Count the parameters; a tied head counts once."""
        return sum(p.numel() for p in self.parameters())

    def flops_per_token(self) -> int:
        """Floating-point operations to train on one token of a full context, forward and backward.

        A multiply-add counts 2, and the backward pass twice the forward (PaLM, appendix B). Keys
        that the mask hides count, since both roads of attention may multiply them.
        """
        c = self.config
        weights = sum(m.weight.numel() for m in self.modules() if isinstance(m, nn.Linear))
        return 6 * weights + 12 * c.n_layer * c.d_model * c.block_size
