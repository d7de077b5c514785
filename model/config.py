"""What a model is: one frozen dataclass whose fields are the YAML keys, flags and help lines."""

from dataclasses import dataclass
from typing import Literal

from model.rope_scaling import check_scaling
from model.setting import check_choices, setting


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a TinyGPT; the defaults are GPT-2 small. ValueError for what cannot be built.

    GPT-2's own weights want mlp=gelu_tanh; LLaMA is pos=rope norm=rmsnorm mlp=swiglu bias=false.
    """

    vocab_size: int = setting(50257, "size of the vocabulary V; a run takes it from the tokenizer")
    block_size: int = setting(1024, "context length: the most tokens the model reads at once")
    n_layer: int = setting(12, "number of blocks")
    n_head: int = setting(12, "attention heads H, of D dimensions each")
    d_model: int = setting(768, "width C of the residual stream")
    n_kv_head: int = setting(0, "heads of keys and values (grouped-query attention); 0 = n_head")
    head_dim: int = setting(0, "dimensions D of a head; 0 = d_model / n_head")
    d_ff: int = setting(0, "hidden width of the MLP; 0 = 4 d_model, or 8/3 if gated")
    dropout: float = setting(0.0, "dropout of embeddings and of what each sublayer adds")
    attn_dropout: float = setting(0.0, "dropout of attention weights; no CPU has a fused kernel")
    bias: bool = setting(True, "add biases in linear layers and LayerNorms")
    pos: Literal["learned", "sinusoidal", "rope", "none"] = setting("learned", "position encoding")
    rope_theta: float = setting(10000.0, "base of RoPE's wavelengths")
    rope_scaling: str = setting("", "RoPE for longer texts: linear, ntk, yarn, llama3 and numbers")
    norm: Literal["layernorm", "rmsnorm"] = setting("layernorm", "normalisation layer")
    norm_eps: float = setting(1e-5, "epsilon of the normalisation layer")
    norm_at: Literal["pre", "post"] = setting("pre", "norm before each sublayer, or after its sum")
    mlp: Literal["gelu", "gelu_tanh", "relu", "relu2", "swiglu", "geglu"] = setting(
        "gelu", "activation of the MLP; swiglu and geglu are gated"
    )
    qk_norm: bool = setting(False, "normalise queries and keys in each head")
    tie_weights: bool = setting(True, "share the token embedding's weights with the head")
    emb_std: float = setting(0.02, "initial standard deviation of the token embedding")
    emb_conv: int = setting(0, "mix the last N embeddings by a depthwise convolution; 0 = none")
    zero_init: bool = setting(False, "initialise each block's output projections to 0")
    attn: Literal["auto", "sdpa", "naive"] = setting(
        "auto", "attention: PyTorch's fused kernel, or the plain equation"
    )
    window: int = setting(0, "attend to the last N tokens only, itself included; 0 = all")
    experts: int = setting(0, "MLPs of a block, of which a router gives each token a few; 0 = one")
    experts_top: int = setting(2, "experts that each token is given to")

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values K."""
        return self.n_kv_head or self.n_head

    @property
    def head_size(self) -> int:
        """Dimensions of a head D."""
        return self.head_dim or self.d_model // self.n_head

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies two branches (Shazeer 2020)."""
        return self.mlp in ("swiglu", "geglu")

    @property
    def hidden(self) -> int:
        """Width of the MLP: 4 C, or if gated (a third matrix) 8/3 C as a multiple of 64."""
        wide = 64 * max(1, round(self.d_model * 8 / 3 / 64)) if self.gated else 4 * self.d_model
        return self.d_ff or wide

    @property
    def slides(self) -> bool:
        """Whether a text may outgrow block_size: a window, and positions that are relative."""
        return self.window > 0 and self.pos in ("rope", "none")

    @property
    def rope(self) -> tuple[int, float, str, int]:
        """What `rope_table` takes beside positions: D, theta, the scaling, and for which length."""
        return self.head_size, self.rope_theta, self.rope_scaling, self.block_size

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "d_model", "experts_top"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("d_ff", "head_dim"):
            if (n := getattr(self, name)) < 0:
                raise ValueError(f"{name}={n} must be positive, or 0 for the usual width")
        for name in ("dropout", "attn_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be in [0, 1)")
        for name, usual in (("rope_theta", "10000"), ("norm_eps", "1e-5"), ("emb_std", "0.02")):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive; {usual} is usual")
        if not 0 <= self.emb_conv <= self.block_size:
            raise ValueError(f"emb_conv={self.emb_conv} must be 0 to block_size={self.block_size}")
        self.check_heads()
        check_scaling(*self.rope)
        if self.experts and self.experts < self.experts_top:
            raise ValueError(f"experts={self.experts} must be 0, or {self.experts_top} and more")
        if self.pos == "sinusoidal" and self.d_model % 2:
            near = self.d_model + self.n_head  # both are odd
            raise ValueError(f"pos=sinusoidal: d_model={self.d_model} is odd; try d_model={near}")
        if self.window and not 1 < self.window < self.block_size:
            raise ValueError(f"window={self.window} must be from 2 to {self.block_size - 1}, or 0")

    def check_heads(self) -> None:
        """Raise ValueError if d_model, n_head and n_kv_head do not divide as they must."""
        C, H, K, D = self.d_model, self.n_head, self.n_kv_head, self.head_size
        if C % H and not self.head_dim:
            near = max(H, H * round(C / H))
            raise ValueError(f"d_model={C} is not a multiple of n_head={H}; try d_model={near}")
        if self.pos == "rope" and D % 2:
            name = "head_dim" if self.head_dim else "d_model/n_head"
            raise ValueError(f"pos=rope rotates pairs, but {name}={D} is odd; make it even")
        if K < 0 or (K and H % K):
            near = max(k for k in range(1, H + 1) if H % k == 0 and k <= max(K, 1))
            raise ValueError(f"n_kv_head={K} does not divide n_head={H}; try n_kv_head={near}")
        if self.qk_norm and D == 1:
            raise ValueError(f"qk_norm needs d_model/n_head of 2 or more, not 1; try n_head={H//2}")
