"""ids -> logits. Opens no file, prints nothing, reads no environment; needs torch alone."""

from model.cache import KVCache
from model.config import GPTConfig
from model.generate import generate, pick_next
from model.gpt import TinyGPT
from model.layout import lay_out

__all__ = ["GPTConfig", "KVCache", "TinyGPT", "generate", "lay_out", "pick_next"]
