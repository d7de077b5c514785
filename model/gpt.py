"""TinyGPT: a stack of Transformer blocks that predicts the next token.

Letters: B batch, T time, C = d_model, V = vocab_size. It opens no file and prints nothing.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, Protocol, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from model.attention import CausalSelfAttention, LayerCache, Rope
from model.config import GPTConfig
from model.moe import MoE, active_weights
from model.norm import Norm
from model.positions import rope_table, sinusoid

Positions = slice | Tensor  # of all rows, or (B,1) where rows differ


class Cache(Protocol):
    """What the model asks of a cache (`model.generation.cache`)."""

    layers: Sequence[LayerCache]

    def open(self, B: int, T: int) -> Positions:
        """Prepare for T tokens in each of B rows; gives their positions."""

    def remember(self, idx: Tensor) -> Tensor | None:
        """Keep the new tokens' ids (B,T); gives those before them that emb_conv asks for."""

    def advance(self, T: int) -> None:
        """Count the T tokens a row that every layer has appended."""


def relu2(x: Tensor) -> Tensor:
    """max(0, x)^2 (Primer, So et al. 2021)."""
    return F.relu(x).square()


ACT: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,  # x Phi(x)
    "gelu_tanh": partial(F.gelu, approximate="tanh"),  # GPT-2's own, by tanh
    "relu": F.relu,
    "relu2": relu2,
    "swiglu": F.silu,  # x sigmoid(x)
    "geglu": F.gelu,
}


class MLP(nn.Module):
    """Each position by itself, wider inside, gated or not (Shazeer 2020). (B,T,C) -> (B,T,C)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        C, hidden = config.d_model, config.hidden
        self.dropout = config.dropout
        self.act = ACT[config.mlp]
        self.gate = nn.Linear(C, hidden, bias=config.bias) if config.gated else None
        self.up = nn.Linear(C, hidden, bias=config.bias)
        self.down = nn.Linear(hidden, C, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:  # exercise: mlp
        """down(act(up(x))), or gated down(act(gate(x)) * up(x))."""
        x = self.act(self.up(x)) if self.gate is None else self.act(self.gate(x)) * self.up(x)
        x = self.down(x)
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class Block(nn.Module):
    """Attention, then MLP, each added to the residual stream. (B,T,C) -> (B,T,C).

    causal=False makes it a block of an encoder; attn_mask then hides the padding.
    """

    def __init__(self, config: GPTConfig, *, causal: bool = True) -> None:
        super().__init__()
        shape = config.d_model, config.norm, config.norm_eps, config.bias
        self.post = config.norm_at == "post"
        self.norm1 = Norm(*shape)
        self.attn = CausalSelfAttention(config, causal=causal)
        self.norm2 = Norm(*shape)
        self.mlp: Any = MoE(config, MLP) if config.experts else MLP(config)

    def forward(  # exercise: block
        self,
        x: Tensor,
        rope: Rope | None = None,
        cache: LayerCache | None = None,
        *,
        attn_mask: Tensor | None = None,
    ) -> Tensor:
        """Norm before each sublayer (GPT-2), or after each sum (Attention Is All You Need)."""
        if self.post:
            x = self.norm1(x + self.attn(x, rope, cache, attn_mask=attn_mask))
            return self.norm2(x + self.mlp(x))
        x = x + self.attn(self.norm1(x), rope, cache, attn_mask=attn_mask)
        return x + self.mlp(self.norm2(x))


def is_plain(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a layer is nn.Linear and no more: nothing wraps, parametrizes or hooks it."""
    hooks = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks
    return type(layer) is nn.Linear and not hooks and not layer._backward_pre_hooks


FUSED = hasattr(F, "linear_cross_entropy")  # torch 2.12 and later
LARGE = 2048  # tokens in the vocabulary; below, logits cost little and fusing gains no time
Reduction = Literal["mean", "sum"]


def can_fuse(head: nn.Module, x: Tensor) -> TypeGuard[nn.Linear]:
    """Whether torch's fused loss is for this: on a CPU, no autocast, no compiler, a plain head."""
    if not FUSED or torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type):
        return False
    plain = is_plain(head) and getattr(head, "bias", None) is None and len(head.weight) >= LARGE
    return plain and x.device.type == "cpu"


def head_loss(head: nn.Module, x: Tensor, targets: Tensor, reduction: Reduction) -> Tensor:
    """Cross-entropy (nats) of the logits head(x): x (N,C), targets (N,); -1 does not count.

    Where it can, by torch's fused function, which makes logits and gradients of 256 positions at a
    time: a GPT-2 small step of 4 x 256 tokens needs 0.5 GB less, in no more time.
    """
    if not can_fuse(head, x):
        return F.cross_entropy(head(x), targets, ignore_index=-1, reduction=reduction)
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=256, chunking_method=None)
    fused = partial(F.linear_cross_entropy, x, head.weight, ignore_index=-1, options=options)
    if reduction == "mean":
        return fused(targets)
    n = (targets != -1).sum()  # without a target: any finite mean, times 0
    return fused(targets.where(n > 0, 0)).double() * n  # exact: over n, it is the mean to the bit


class TinyGPT(nn.Module):
    """A GPT after GPT-2 (Radford et al. 2019): `logits, loss = TinyGPT(config)(idx, targets)`.

    Set `activation_checkpointing` to compute each block's activations again in the backward pass
    instead of keeping them: the same gradients in less memory, for a third more work (Chen et al.
    2016).
    """

    cos: Tensor
    sin: Tensor
    wave: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        C, V, T = config.d_model, config.vocab_size, config.block_size
        self.config = config
        self.activation_checkpointing = False
        self.cache_dtype: torch.dtype | None = None  # of keys and values (model.generation.caches)
        self.tok_emb = nn.Embedding(V, C)
        self.conv = nn.Parameter(torch.ones(config.emb_conv, C)) if config.emb_conv else None
        self.pos_emb = nn.Embedding(T, C) if config.pos == "learned" else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        pre = config.norm_at == "pre"  # a post-norm block ends in a norm of its own
        self.norm = Norm(C, config.norm, config.norm_eps, config.bias) if pre else nn.Identity()
        self.head = nn.Linear(C, V, bias=False)
        if config.tie_weights:
            self.head.weight = self.tok_emb.weight
        if config.pos == "rope":
            cos, sin = rope_table(T, *config.rope)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        if config.pos == "sinusoidal":
            self.register_buffer("wave", sinusoid(T, C), persistent=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:  # exercise: init-weights
        """GPT-2's start: N(0, 0.02), biases 0, each block's output projections / sqrt(2 n_layer).

        With zero_init those are 0: each block starts as the identity (Fixup, Zhang et al. 2019).
        """
        c = self.config
        for m in self.modules():
            if isinstance(m, nn.Linear | nn.Embedding):
                m.weight.normal_(0, c.emb_std if m.weight is self.tok_emb.weight else 0.02)
            if isinstance(m, nn.Linear) and m.bias is not None:
                m.bias.zero_()
        if self.conv is not None:
            self.conv[1:].normal_(0, 0.5)  # another mixture in each dimension; the newest counts 1
        for m in self.modules():
            if isinstance(m, CausalSelfAttention | MLP):  # 2 n_layer terms add up in the stream:
                weight = m.down.weight if isinstance(m, MLP) else m.proj.weight
                weight.div_(math.sqrt(2 * c.n_layer))  # keep their sum's size
                if c.zero_init:
                    weight.zero_()

    def hidden_states(self, idx: Tensor, cache: Cache | None = None) -> Tensor:
        """The residual stream after the last norm, idx (B,T) -> (B,T,C); `head` makes it logits.

        With a KVCache, idx goes on from the tokens that it holds, and is held from then on. Raises
        ValueError for more than block_size tokens, unless the config slides, or a cache of other B.
        """
        T = idx.size(1)
        if self.config.block_size < T and not self.config.slides:
            raise ValueError(f"{T} tokens exceed block_size={self.config.block_size}; crop them")
        if cache is None:
            return self.forward_blocks(idx, slice(T))
        positions, before = cache.open(*idx.shape), cache.remember(idx)
        x = self.forward_blocks(idx, positions, cache.layers, before)
        cache.advance(T)
        return x

    def token_embeddings(self, idx: Tensor, before: Tensor | None = None) -> Tensor:
        """Embed the tokens idx (B,T) -> (B,T,C). With emb_conv, x_t = sum_k conv_k * e_(t-k).

        So each position sees which tokens come before it, as attention's first layer would have to
        learn (short convolutions: Primer, So et al. 2021; Canon layers, Allen-Zhu 2025). before
        (B,K-1) are the ids before idx, -1 where there is none; None is none at all.
        """
        if self.conv is None:
            return self.tok_emb(idx)
        n = len(self.conv) - 1
        ids = torch.cat((idx.new_full((len(idx), n), -1) if before is None else before, idx), 1)
        e = self.tok_emb(ids.clamp(min=0)) * (ids >= 0)[..., None]
        x = e[:, n:] * self.conv[0]
        for k in range(1, n + 1):
            x = x + e[:, n - k : -k] * self.conv[k]
        return x

    def embed(self, idx: Tensor, positions: Positions, before: Tensor | None = None) -> Tensor:
        """What the first block reads: tokens idx (B,T), and where they stand -> (B,T,C)."""
        x = self.token_embeddings(idx, before)
        if self.pos_emb is not None:
            x = x + self.pos_emb.weight[positions]
        if self.config.pos == "sinusoidal":
            x = math.sqrt(x.size(-1)) * x + self.wave[positions]  # section 3.4
        return F.dropout(x, self.config.dropout, self.training)

    def forward_blocks(
        self,
        idx: Tensor,
        positions: Positions,
        layers: Sequence[LayerCache] | None = None,
        before: Tensor | None = None,
    ) -> Tensor:
        """Do the work of `hidden_states`: tokens at these positions, after those in a cache."""
        x = self.embed(idx, positions, before)
        rope = self.rope(idx.size(1), positions) if self.config.pos == "rope" else None
        again = self.activation_checkpointing and self.training
        caches: Sequence[LayerCache | None] = layers or [None] * len(self.blocks)
        for block, cache in zip(self.blocks, caches, strict=True):
            x = checkpoint(block, x, rope, use_reentrant=False) if again else block(x, rope, cache)
        return self.norm(x)

    def rope(self, T: int, positions: Positions) -> Rope:
        """RoPE's tables at these positions, to rotate (B,H,T,D): (1,T,D/2) or (B,1,1,D/2) each."""
        cos, sin = self.cos, self.sin
        if len(cos) < T:  # where the model slides
            cos, sin = (table.to(self.cos) for table in rope_table(T, *self.config.rope))
        return cos[positions].unsqueeze(-3), sin[positions].unsqueeze(-3)

    def forward(  # exercise: loss
        self,
        idx: Tensor,
        targets: Tensor | None = None,
        *,
        loss_only: bool = False,
        reduction: Reduction = "mean",
    ) -> tuple[Tensor | None, Tensor | None]:
        """Logits (B,T,V) for idx (B,T), and the cross-entropy (nats) of targets (B,T).

        It is the mean over targets, or with reduction="sum" their sum; a target of -1 does not
        count. With loss_only the logits are None, and need not all be in memory at once
        (`head_loss`). Raises ValueError if T > block_size.
        """
        x = self.hidden_states(idx)
        if loss_only and targets is not None:
            return None, head_loss(self.head, x.flatten(0, 1), targets.flatten(), reduction)
        logits = self.head(x)
        if targets is None:
            return logits, None
        flat = logits.flatten(0, 1), targets.flatten()
        return logits, F.cross_entropy(*flat, ignore_index=-1, reduction=reduction)

    def n_params(self) -> int:
        """Count the parameters; a tied head counts once."""
        return sum(p.numel() for p in self.parameters())

    def flops_per_token(self) -> int:
        """Floating-point operations to train on one token of a full context, forward and backward.

        A multiply-add counts 2, and the backward pass twice the forward (PaLM, appendix B). Keys
        that the mask hides count, since both implementations of attention may multiply them.
        """
        c = self.config
        return 6 * active_weights(self) + 12 * c.n_layer * c.n_head * c.head_size * c.block_size
