"""Whether torch.compile makes a model write faster here: tried and timed."""

from collections.abc import Callable
from time import perf_counter

import torch

from model import TinyGPT, generate
from model.generation.compiled import CompiledStep
from tok.cli import one_line
from utils.device import cannot_compile


def tokens_per_second(
    model: TinyGPT, B: int, steps: int = 32, decode_step: CompiledStep | None = None
) -> float:
    """Speed of writing B rows after a prompt of one token."""
    start = torch.zeros((B, 1), dtype=torch.long, device=next(model.parameters()).device)
    began = perf_counter()
    for ids in generate(model, start, steps, temperature=0, decode_step=decode_step):
        ids.tolist()
    return B * steps / (perf_counter() - began)


def compiled_step(model: TinyGPT, B: int, say: Callable[[str], object]) -> CompiledStep | None:
    """A `decode_step` for `generate` with B rows, or None if eager is faster or nothing compiles.

    `say` is called with how long compiling took, and which of the two it is.
    """
    if why := cannot_compile(next(model.parameters()).device):
        say(f"compile off: {why}, so the model runs eager")
        return None
    eager = max(tokens_per_second(model, B) for _ in range(3))
    step, began = CompiledStep(model), perf_counter()
    try:
        tokens_per_second(model, B, decode_step=step)
    except RuntimeError as e:  # a compiler that is there and does not work, say for want of headers
        say(f"compile off: {type(e).__name__}: {one_line(e, 80)}; the model runs eager")
        return None
    took = perf_counter() - began
    fast = max(tokens_per_second(model, B, decode_step=step) for _ in range(3))
    say(f"compiling took {took:.1f} s; {fast:,.0f} tok/s compiled, {eager:,.0f} eager")
    if fast > eager:
        return step
    say("compile off: eager is the faster here")
    return None
