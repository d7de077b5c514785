"""Which flags of sample.py go together. Without torch: they are checked before its import."""

from argparse import Namespace

from model.generation.limits import check_sampling
from utils.writing.stops import check_stops


def check(a: Namespace) -> None:
    """Raise ValueError for flags that make no sense, or not together."""
    if a.fill and (a.prompt or a.prompt_file or a.interactive or a.chat or a.grid or a.show_probs):
        raise ValueError("--fill fills [MASK]s; leave out prompts and other ways to write")
    for name in ("num", "steps", "top"):
        if getattr(a, name) < 1:
            raise ValueError(f"{name}={getattr(a, name)} must be at least 1")
    if min(a.top_k) < 0:
        raise ValueError(f"top_k={min(a.top_k)} must be 0 (every token) or more")
    if a.seed is not None and not 0 <= a.seed < 2**63:
        raise ValueError(f"seed={a.seed} must be in [0, 2**63)")
    for temp in a.temp:
        check_sampling(temp, None, a.top_p, a.min_p, a.repetition_penalty)
    for name in ("temp", "top_k"):
        if len(getattr(a, name)) > 1 and not a.grid:
            raise ValueError(f"{name}={getattr(a, name)}: several values need --grid")
    check_stops(a.stop)
    typed = a.interactive or a.chat
    if typed and (a.prompt or a.prompt_file or a.num > 1):
        way = "--chat answers" if a.chat else "--interactive continues"
        raise ValueError(f"{way} what you type; leave out prompts and --num")
    if a.system is not None and not a.chat:
        raise ValueError("--system begins a chat; add --chat")
    lora = a.lora or ["on"]
    if len(set(lora)) < len(lora):
        raise ValueError(f"lora={' '.join(lora)}: give on, off, or on off")
    if len(lora) > 1 and (typed or a.novelty):
        what = "a conversation has" if typed else "--novelty judges"
        raise ValueError(f"lora={' '.join(lora)}: {what} one model; give on or off")
    if a.novelty and (typed or a.grid or a.show_probs):
        raise ValueError("--novelty judges whole texts; leave out the other way to write")
    if a.cache == "int8" and (a.compile or a.no_cache):
        raise ValueError("--cache int8 does not go with --no-cache or --compile; leave one out")
    if a.compile and a.no_cache:
        raise ValueError("--compile compiles a step with the cache; leave out --no-cache")
