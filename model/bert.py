"""BERT (Devlin et al. 2019): the encoder that is TinyGPT's sibling, from the same blocks.

It reads a text from both sides, with its padding hidden, and names tokens that were masked. Letters
as in `model.attention`. It knows no text, and not which tokens are masked.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from model.attention import CausalSelfAttention, Rope
from model.config import GPTConfig
from model.gpt import ACT, MLP, Block, Reduction, head_loss
from model.norm import Norm
from model.positions import rope_table, sinusoid
from model.setting import setting


@dataclass(frozen=True)
class BertConfig(GPTConfig):
    """The shape of a TinyBERT; the defaults are BERT base. ValueError for what cannot be built.

    A modern encoder is norm_at=pre pos=rope norm=rmsnorm bias=false (Geiping & Goldstein 2023).
    """

    vocab_size: int = setting(30522, "size of the vocabulary V; a run takes it from the tokenizer")
    block_size: int = setting(512, "context length: the most tokens the model reads at once")
    norm_eps: float = setting(1e-12, "epsilon of the normalisation layer")
    norm_at: Literal["pre", "post"] = setting("post", "norm before each sublayer, or after its sum")
    token_types: int = setting(2, "kinds of segment that a token can belong to; 0 = none")
    classes: int = setting(0, "classes that a text can belong to; 0 = no classifier")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.emb_conv:
            raise ValueError(f"emb_conv={self.emb_conv} looks back only, an encoder not; set it 0")
        if self.token_types < 0 or self.classes < 0 or self.classes == 1:
            seen = f"token_types={self.token_types} classes={self.classes}"
            raise ValueError(f"{seen}: give 0 or more token_types, 0 or at least 2 classes")


class MaskedHead(nn.Module):
    """Name the tokens: the embedding's transpose after one layer more. (...,C) -> (...,V)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        C, V = config.d_model, config.vocab_size
        self.act = ACT[config.mlp]
        self.dense = nn.Linear(C, C, bias=config.bias)
        self.norm = Norm(C, config.norm, config.norm_eps, config.bias)
        self.weight = nn.Parameter(torch.empty(V, C))
        self.bias = nn.Parameter(torch.zeros(V)) if config.bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Logits W norm(act(dense(x))) + b."""
        return F.linear(self.norm(self.act(self.dense(x))), self.weight, self.bias)


class Pooler(nn.Module):
    """A text as one vector, from its first position. (B,T,C) -> (B,C)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.d_model, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """tanh(dense(x_0)): the hidden state of [CLS]."""
        return self.dense(x[:, 0]).tanh()


def padding_mask(padding: Tensor | None) -> Tensor | None:
    """Hide the padding: (B,T), True where a token is -> which keys count, (B,1,1,T).

    A row without any token sees all of its padding: it is finite, and means nothing. Raises
    ValueError for another type than bool.
    """
    if padding is None:
        return None
    if padding.dtype != torch.bool:
        raise ValueError(f"padding is {padding.dtype}; give bool, True for a token: mask.bool()")
    return (padding | ~padding.any(1, keepdim=True))[:, None, None]


class TinyBERT(nn.Module):
    """An encoder after BERT: `logits, loss = TinyBERT(config)(idx, targets, padding=padding)`.

    `head` names masked tokens, `next_sentence` says of two segments whether the second follows,
    `classifier` (if the config has classes) what a text is; both read what `pooler` gives. Set
    `activation_checkpointing` as in TinyGPT.
    """

    config: BertConfig
    cos: Tensor
    sin: Tensor
    wave: Tensor

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        C, V, T = config.d_model, config.vocab_size, config.block_size
        shape = C, config.norm, config.norm_eps, config.bias
        self.config = config
        self.activation_checkpointing = False
        self.tok_emb = nn.Embedding(V, C)
        self.pos_emb = nn.Embedding(T, C) if config.pos == "learned" else None
        self.type_emb = nn.Embedding(config.token_types, C) if config.token_types else None
        self.emb_norm = Norm(*shape)
        self.blocks = nn.ModuleList(Block(config, causal=False) for _ in range(config.n_layer))
        self.norm = Norm(*shape) if config.norm_at == "pre" else nn.Identity()
        self.head = MaskedHead(config)
        if config.tie_weights:
            self.head.weight = self.tok_emb.weight  # type: ignore[assignment]  # a Parameter it is
        self.pooler = Pooler(config)
        self.next_sentence = nn.Linear(C, 2, bias=config.bias)
        n = config.classes
        self.classifier = nn.Linear(C, n, bias=config.bias) if n else None
        if config.pos == "rope":
            cos, sin = rope_table(T, *config.rope)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        if config.pos == "sinusoidal":
            self.register_buffer("wave", sinusoid(T, C), persistent=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """BERT's start: N(0, 0.02), biases 0. Pre-norm, output projections as in TinyGPT."""
        c = self.config
        for m in self.modules():
            if isinstance(m, nn.Linear | nn.Embedding | MaskedHead):
                m.weight.normal_(0, c.emb_std if m.weight is self.tok_emb.weight else 0.02)
            if isinstance(m, nn.Linear) and m.bias is not None:
                m.bias.zero_()
        scale = 0.0 if c.zero_init else (2 * c.n_layer) ** -0.5 if c.norm_at == "pre" else 1.0
        for m in self.modules():
            if isinstance(m, CausalSelfAttention | MLP):
                (m.down if isinstance(m, MLP) else m.proj).weight.mul_(scale)

    def embed(self, idx: Tensor, token_types: Tensor | None = None) -> Tensor:
        """What the first block reads: the sum of token, position and segment (B,T), normalised."""
        x = self.tok_emb(idx)
        if self.pos_emb is not None:
            x = x + self.pos_emb.weight[: idx.size(1)]
        if self.config.pos == "sinusoidal":
            x = math.sqrt(x.size(-1)) * x + self.wave[: idx.size(1)]
        if self.type_emb is not None:
            x = x + self.type_emb(torch.zeros_like(idx) if token_types is None else token_types)
        elif token_types is not None:
            raise ValueError("token_types=0 in the config: the model knows no segments; leave out")
        return F.dropout(self.emb_norm(x), self.config.dropout, self.training)

    def hidden_states(
        self, idx: Tensor, token_types: Tensor | None = None, padding: Tensor | None = None
    ) -> Tensor:
        """The residual stream after the last norm, idx (B,T) -> (B,T,C); `head` makes it logits.

        token_types (B,T) says to which segment a token belongs, all to the first if left out;
        padding (B,T) is True where there is a token. Raises ValueError for more than block_size
        tokens.
        """
        T = idx.size(1)
        if self.config.block_size < T:
            raise ValueError(f"{T} tokens exceed block_size={self.config.block_size}; crop them")
        x, mask = self.embed(idx, token_types), padding_mask(padding)
        rope: Rope | None = None
        if self.config.pos == "rope":
            rope = self.cos[None, :T], self.sin[None, :T]
        again = self.activation_checkpointing and self.training
        for block in self.blocks:
            if again:
                x = checkpoint(block, x, rope, attn_mask=mask, use_reentrant=False)
            else:
                x = block(x, rope, attn_mask=mask)
        return self.norm(x)

    def forward(
        self,
        idx: Tensor,
        targets: Tensor | None = None,
        *,
        token_types: Tensor | None = None,
        padding: Tensor | None = None,
        is_next: Tensor | None = None,
        labels: Tensor | None = None,
        loss_only: bool = False,
        reduction: Reduction = "mean",
    ) -> tuple[Tensor | None, Tensor | None]:
        """Logits (B,T,V) for idx (B,T), and the cross-entropy (nats) of targets (B,T).

        A target of -1 does not count; is_next (B,), 0 where the second segment follows and 1 where
        it is another, adds its own cross-entropy. Each is a mean, or with reduction="sum" a sum.
        With loss_only the logits are None, and made for positions with a target alone. labels (B,)
        are classes: the loss is theirs. Other arguments and errors as in `hidden_states`.
        """
        x = self.hidden_states(idx, token_types, padding)
        logits, loss = None, None
        if loss_only and targets is not None:
            at = targets != -1
            loss = head_loss(self.head, x[at], targets[at], reduction)
        elif not loss_only:
            logits = self.head(x)
        if targets is not None and logits is not None:
            flat = logits.flatten(0, 1), targets.flatten()
            loss = F.cross_entropy(*flat, ignore_index=-1, reduction=reduction)
        if is_next is not None:
            pair = F.cross_entropy(self.next_sentence(self.pooler(x)), is_next, reduction=reduction)
            loss = pair if loss is None else loss + pair
        if labels is not None and self.classifier is not None:
            loss = F.cross_entropy(self.classifier(self.pooler(x)), labels, reduction=reduction)
        return logits, loss

    def n_params(self) -> int:
        """Count the parameters; a tied head counts once."""
        return sum(p.numel() for p in self.parameters())

    def flops_per_token(self, predicted: float = 1.0) -> int:
        """As TinyGPT's; the masked head computes a share `predicted` of the positions.

        What is done once for a whole text counts nothing: the pooler and what reads it.
        """
        c = self.config
        blocks = sum(m.weight.numel() for m in self.blocks.modules() if isinstance(m, nn.Linear))
        head = self.head.dense.weight.numel() + self.head.weight.numel()
        attention = 12 * c.n_layer * c.n_head * c.head_size * c.block_size
        return 6 * (blocks + round(predicted * head)) + attention
