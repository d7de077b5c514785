"""ids -> logits. Opens no file, prints nothing, reads no environment; needs torch alone."""

from model.config import GPTConfig
from model.generate import generate, pick_next
from model.gpt import TinyGPT

__all__ = ["GPTConfig", "TinyGPT", "generate", "pick_next"]
