"""What a model is: one frozen dataclass whose fields are the YAML keys, flags and help lines."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args


def setting(default: Any, help: str) -> Any:
    """Declare a field with the line of help that the flag, `--help` and the docs show."""
    return field(default=default, metadata={"help": help})


def check_choices(config: Any) -> None:
    """Raise ValueError for a field of type Literal[...] whose value is not one of its choices."""
    for f in fields(config):
        value, choices = getattr(config, f.name), get_args(f.type)
        if choices and value not in choices:
            raise ValueError(f"{f.name}={value!r} is not one of {', '.join(map(str, choices))}")


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a TinyGPT; the defaults are GPT-2 small. ValueError for what cannot be built."""

    vocab_size: int = setting(50257, "number of token ids V; in a run it comes from the tokenizer")
    block_size: int = setting(1024, "context: the most tokens the model sees at once")
    n_layer: int = setting(12, "number of blocks")
    n_head: int = setting(12, "attention heads H; each has D = d_model / n_head dimensions")
    d_model: int = setting(768, "width C of the residual stream")
    d_ff: int = setting(0, "hidden width of the MLP; 0 = 4 d_model")
    dropout: float = setting(0.0, "share of activations dropped in training")
    bias: bool = setting(True, "biases in the linear layers and LayerNorms")
    pos: Literal["learned", "rope"] = setting("learned", "how places are told")
    rope_theta: float = setting(10000.0, "base of RoPE's wavelengths")
    tie_weights: bool = setting(True, "the head reuses the token embedding")
    attn: Literal["auto", "sdpa", "naive"] = setting(
        "auto", "fused attention, or the equation as it is"
    )

    def __post_init__(self):
        check_choices(self)
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "d_model"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.d_ff < 0:
            raise ValueError(f"d_ff={self.d_ff} must be positive, or 0 for 4 * d_model")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must be in [0, 1)")
        C, H = self.d_model, self.n_head
        if C % H:
            near = max(H, H * round(C / H))
            raise ValueError(f"d_model={C} is not a multiple of n_head={H}; try d_model={near}")
        if self.pos == "rope" and C // H % 2:
            raise ValueError(
                f"pos=rope turns pairs, but d_model/n_head={C // H} is odd; make it even"
            )
        if self.rope_theta <= 0:
            raise ValueError(f"rope_theta={self.rope_theta} must be positive; 10000 is usual")
