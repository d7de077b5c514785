"""ids -> logits. Opens no file, prints nothing, reads no environment; needs torch alone.

A name is imported when it is first asked for: who reads `model.config` only, to check a flag, does
not wait two seconds for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from model.config import GPTConfig

if TYPE_CHECKING:
    from model.adapt.few_rows import few_rows
    from model.attention import CausalSelfAttention
    from model.bert import BertConfig, TinyBERT
    from model.generation.cache import KVCache
    from model.generation.loop import generate
    from model.generation.sampling import pick_next
    from model.gpt import MLP, Block, TinyGPT
    from model.kinds import MODELS
    from model.norm import Norm
    from model.positions import rope_table

__all__ = [
    "MLP",
    "MODELS",
    "BertConfig",
    "Block",
    "CausalSelfAttention",
    "GPTConfig",
    "KVCache",
    "Norm",
    "TinyBERT",
    "TinyGPT",
    "few_rows",
    "generate",
    "pick_next",
    "rope_table",
]

HOMES = {  # module: its names above
    "adapt.few_rows": ("few_rows",),
    "attention": ("CausalSelfAttention",),
    "bert": ("BertConfig", "TinyBERT"),
    "generation.cache": ("KVCache",),
    "generation.loop": ("generate",),
    "generation.sampling": ("pick_next",),
    "gpt": ("MLP", "Block", "TinyGPT"),
    "kinds": ("MODELS",),
    "norm": ("Norm",),
    "positions": ("rope_table",),
}


def __dir__() -> list[str]:
    """Also what has not been asked for yet."""
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:  # there every name is known, and a wrong one an error

    def __getattr__(name: str) -> Any:
        """Import a name of `__all__` from its home (PEP 562)."""
        for home, names in HOMES.items():
            if name in names:
                return getattr(import_module(f"model.{home}"), name)
        raise AttributeError(f"module 'model' has no attribute {name!r}")
