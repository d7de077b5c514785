"""From a prompt to more ids: how the next is picked, and what is kept from step to step."""

from model.generation.cache import KVCache
from model.generation.compiled import CompiledStep
from model.generation.loop import generate
from model.generation.sampling import check_sampling, pick_next

__all__ = ["CompiledStep", "KVCache", "check_sampling", "generate", "pick_next"]
