"""Write on: pick a token from the last logits, append it, again. B batch, T time, V vocabulary."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from model.context import Cached, Whole, reach


def penalised(logits, seen, penalty):
    """Logits (B,V); those seen, (B,V) bool, over penalty, or times it if negative."""
    less = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, less, logits)


def largest(x, k):
    """Which are the k largest of each row, (B,V) bool: exactly k, of equals the first ones."""
    least = x.topk(k).values[:, -1:]
    above, equal = x > least, x == least
    return above | (equal & (equal.cumsum(-1) <= k - above.sum(-1, keepdim=True)))


def nucleus(p, top_p):
    """Which make up the smallest set of the likeliest whose mass reaches top_p, (B,V) bool."""
    mass, ids = p.sort(dim=-1, descending=True, stable=True)
    kept = mass.cumsum(-1) - mass < top_p  # stays while the mass before it is short of top_p
    return torch.empty_like(kept).scatter_(-1, ids, kept)


def check_sampling(
    temperature=1.0, top_k=None, top_p=None, min_p=None, repetition_penalty=1.0
) -> None:
    """Raise ValueError for a value that no distribution can be made of."""
    if not temperature >= 0:
        raise ValueError(f"temperature={temperature} must be 0 (the most likely token) or more")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k} must be at least 1; leave it out to keep every token")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} must be in (0, 1]; leave it out to keep every token")
    if min_p is not None and not 0 <= min_p <= 1:
        raise ValueError(f"min_p={min_p} must be in [0, 1]; leave it out to keep every token")
    if not 1e-9 <= repetition_penalty <= 1e9:  # further off, logits leave float32
        raise ValueError(
            f"repetition_penalty={repetition_penalty} must be positive, 1e-9 to 1e9; 1 is none"
        )


def probabilities(logits, *, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """What `pick_next` draws from: logits (B,V) -> shares (B,V), each row adding up to 1.

    In this order: top_k keeps the k most likely, exactly k, also on ties; the temperature divides
    the logits; top_p keeps the smallest set whose share reaches p (nucleus sampling, Holtzman et
    al. 2020); min_p drops what is less likely than min_p times the likeliest (Nguyen et al. 2024).
    """
    check_sampling(temperature, top_k, top_p, min_p)
    z = logits.float()
    if temperature == 0:
        return torch.nn.functional.one_hot(z.argmax(-1), z.size(-1)).float()
    if top_k is not None and top_k < z.size(-1):
        z = z.masked_fill(~largest(z, top_k), -math.inf)
    # the largest logit is taken off first: a tiny temperature then cannot overflow
    temperature = min(max(temperature, 1e-37), 1e37)  # beyond, 0 / 0 in float32, or inf / inf
    p = ((z - z.amax(-1, keepdim=True)) / temperature).softmax(-1)
    if top_p is not None and top_p < 1:
        p = p * nucleus(p, top_p)
    if min_p:
        p = p * (p >= min_p * p.amax(-1, keepdim=True))
    return p / p.sum(-1, keepdim=True)


def draw(p, u):
    """Where u (B,) of [0,1) falls when the shares p (B,V) are laid end to end: ids (B,)."""
    ends = p.cumsum(-1)
    return torch.searchsorted(ends, ends[:, -1:] * u[:, None], right=True)[:, 0]


def pick_next(logits, *, repetition_penalty=1.0, seen=None, generator=None, u=None, **sampling):
    """Draw one id per row: logits (B,V) -> (B,).

    `sampling` goes to `probabilities`, from which is drawn, by numbers u (B,) of [0,1) or else by
    the generator; at temperature 0 the most likely is taken. repetition_penalty > 1 first lowers
    what stands in the text already, seen (B,V) bool (CTRL, Keskar et al. 2019). Raises ValueError
    for temperature < 0, top_k < 1, top_p outside (0, 1], min_p outside [0, 1], or a
    repetition_penalty that is not positive.
    """
    check_sampling(**sampling, repetition_penalty=repetition_penalty)
    if seen is not None and repetition_penalty != 1:
        logits = penalised(logits, seen, repetition_penalty)
    if sampling.get("temperature") == 0:
        return logits.argmax(-1)
    p = probabilities(logits, **sampling)
    if u is None:
        u = torch.rand(len(p), generator=generator, device=p.device)
    return draw(p, u)


def prompts_of(idx, V, device) -> list[torch.Tensor]:
    """A tensor (B,T), or a list of B prompts of any lengths -> B tensors of ids in [0, V)."""
    if isinstance(idx, torch.Tensor) and idx.ndim != 2:
        raise ValueError(f"the prompt has shape {tuple(idx.shape)}; give (B,T) with T >= 1")
    rows = [torch.as_tensor(row, device=device) for row in idx]
    for row in rows:
        if row.ndim != 1 or len(row) == 0:
            shape = tuple(idx.shape) if isinstance(idx, torch.Tensor) else tuple(row.shape)
            raise ValueError(f"the prompt has shape {shape}; give (B,T) with T >= 1")
        if row.is_floating_point():
            raise ValueError(f"the prompt has dtype {row.dtype}; give ids, which are integers")
        if bad := [i for i in (int(row.min()), int(row.max())) if not 0 <= i < V]:
            raise ValueError(f"the prompt has id {bad[0]}; the model knows 0 to {V - 1}")
    if not rows:
        raise ValueError("there is no prompt; give at least one")
    return [row.long() for row in rows]


def seeds_of(seed, B) -> list[int]:
    """One seed a row: seed + i for row i, a list as it is, None from the system's randomness."""
    if seed is None:
        return [torch.Generator().seed() for _ in range(B)]
    seeds = [seed + i for i in range(B)] if isinstance(seed, int) else list(seed)
    if len(seeds) != B:
        raise ValueError(f"{len(seeds)} seeds for {B} prompts; give one each, or a single number")
    if bad := [s for s in seeds if not 0 <= s < 2**64]:
        raise ValueError(f"seed={bad[0]} must be in [0, 2**64)")
    return seeds


def uniforms(seeds, device) -> Iterator[torch.Tensor]:
    """Numbers of [0,1), (B,) a time, without end: row i's follow from seeds[i] alone."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]  # alike on every device
    while True:
        block = [torch.rand(256, generator=generator) for generator in generators]
        yield from torch.stack(block, 1).to(device)


def padded(prompts):
    """Prompts of any lengths -> (B,T), zeros before the shorter ones."""
    T = max(map(len, prompts))
    return torch.stack([torch.nn.functional.pad(row, (T - len(row), 0)) for row in prompts])


def seen_in(prompts, V):
    """Which ids stand in each prompt, (B,V) bool."""
    seen = torch.zeros(len(prompts), V, dtype=torch.bool, device=prompts[0].device)
    for row, prompt in zip(seen, prompts, strict=True):
        row[prompt[prompt < V]] = True
    return seen


@contextmanager
def writing(model):
    """Eval mode and no gradients; afterwards the mode is as it was."""
    training = model.training
    model.train(False) if training else None  # it visits every module: not at each step for nothing
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train() if training else None


def generate(
    model,
    idx,
    steps,
    *,
    temperature=1.0,
    top_k=None,
    top_p=None,
    min_p=None,
    repetition_penalty=1.0,
    seed=None,
    stop=None,
    vocab_size=None,
    cache=True,
    watch=None,
) -> Iterator[torch.Tensor]:
    """Yield the next ids (B,), `steps` times, after the prompts idx: (B,T), or B lists of ids.

    Each row is what it would be alone, whatever the lengths of the others. `seed` is one a row, or
    a number s, which gives row i the seed s + i; torch's global random state is left alone. `stop`,
    an id or a set of them, ends when every row has drawn one; a row that is done repeats its stop
    id. Only ids below `vocab_size` are drawn (default: the model's). `watch(ids, logits)`, if
    given, sees each step's ids (B,) and logits (B,V). What the model sees of a text longer than
    block_size is told in `model.context`; `cache=False` reads all that again at each step, for the
    same ids, more slowly. Between two steps the model is in the mode that the caller left it in.
    Raises ValueError for an empty prompt, ids that the model does not know, or a bad setting.
    """
    sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    sampling["repetition_penalty"] = repetition_penalty
    check_sampling(**sampling)
    V, device = model.config.vocab_size, next(model.parameters()).device
    prompts = prompts_of(idx, V, device)
    if steps < 0:
        raise ValueError(f"steps={steps} must be 0 or more")
    if vocab_size is not None and not 1 <= vocab_size <= V:
        raise ValueError(f"vocab_size={vocab_size} must be from 1 to the model's {V}")
    numbers = uniforms(seeds_of(seed, len(prompts)), device)
    stops = sorted({stop} if isinstance(stop, int) else stop or ())
    road = Cached if cache else Whole
    return write_on(model, prompts, steps, road, vocab_size or V, stops, numbers, sampling, watch)


def write_on(model, prompts, steps, road, V, stops, numbers, sampling, watch):
    """Do the work of `generate`, which checks its arguments before the first step is asked for."""
    lengths, penalty = [len(row) for row in prompts], sampling["repetition_penalty"]
    longest = max(model.config.block_size, reach(model.config) + 1)
    seen = None if penalty == 1 else seen_in(prompts, V)
    read = None
    for _ in range(steps):
        with writing(model):  # between the steps the model is the caller's
            if read is None:
                text = padded(prompts)
                read, ends = road(model, text, lengths), text.new_tensor(stops)
                done = torch.zeros_like(text[:, 0], dtype=torch.bool)
            logits = model.head(read(text))[:, :V]
            drawn = pick_next(logits, seen=seen, u=next(numbers), **sampling)
            if stops:
                drawn = torch.where(done, text[:, -1], drawn)
                done |= torch.isin(drawn, ends)
            if seen is not None:
                seen.scatter_(1, drawn[:, None], True)
            if watch is not None:
                watch(drawn, logits)
            text = torch.cat((text, drawn[:, None]), 1)[:, -longest:]
        yield drawn.clone()  # outside of inference mode: it may be trained on
        if stops and done.all():
            return
