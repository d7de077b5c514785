"""Write on: pick a token from the last logits, append it, again. B batch, T time, V vocabulary."""

from collections.abc import Iterator

import torch


def pick_next(logits, *, temperature=1.0, top_k=None, top_p=None, generator=None):
    """Draw one id per row: logits (B,V) -> (B,).

    temperature 0 takes the most likely. top_k keeps the k most likely: exactly k, also on ties, and
    all of them if k > V. top_p then keeps the smallest set whose probability reaches p (nucleus
    sampling, Holtzman et al. 2020). Raises ValueError for temperature < 0, top_k < 1, or top_p
    outside (0, 1].
    """
    check_sampling(temperature, top_k, top_p)
    if temperature == 0:
        return logits.argmax(-1)
    logits, ids = logits.float().sort(dim=-1, descending=True, stable=True)  # both (B,V)
    if top_k is not None:
        logits, ids = logits[:, :top_k], ids[:, :top_k]  # by index: a threshold keeps all ties
    # the largest logit is taken off first: a tiny temperature then cannot overflow
    p = ((logits - logits[:, :1]) / temperature).softmax(-1)
    if top_p is not None:
        p = p * (p.cumsum(-1) - p < top_p)  # stays while the mass before it is short of top_p
    drawn = torch.multinomial(p, 1, generator=generator)  # (B,1), places in the sorted order
    return ids.gather(-1, drawn)[:, 0]


def check_sampling(temperature, top_k, top_p) -> None:
    """Raise ValueError for a value that no distribution can be made of."""
    if not temperature >= 0:
        raise ValueError(f"temperature={temperature} must be 0 (the most likely token) or more")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k} must be at least 1; leave it out to keep every token")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} must be in (0, 1]; leave it out to keep every token")


def generate(
    model, idx, steps, *, temperature=1.0, top_k=None, top_p=None, seed=None, stop=None
) -> Iterator[torch.Tensor]:
    """Yield the next ids (B,), `steps` times, after the prompt idx (B,T); T may exceed block_size.

    The model sees the last block_size tokens. The same seed gives the same ids, and torch's global
    random state is left alone. `stop`, an id or a set of them, ends when every row has drawn one; a
    row that is done repeats its stop id. Raises ValueError for an empty prompt or a bad setting.
    """
    check_sampling(temperature, top_k, top_p)
    if idx.ndim != 2 or idx.size(1) == 0:
        raise ValueError(f"the prompt has shape {tuple(idx.shape)}; give (B,T) with T >= 1")
    if steps < 0:
        raise ValueError(f"steps={steps} must be 0 or more")
    return write_on(model, idx, steps, temperature, top_k, top_p, seed, stop)


@torch.no_grad()
def write_on(model, idx, steps, temperature, top_k, top_p, seed, stop):
    """Do the work of `generate`, which checks its arguments before the first step is asked for."""
    generator = torch.Generator(idx.device)
    generator.seed() if seed is None else generator.manual_seed(seed)
    stops = torch.tensor(sorted({stop} if isinstance(stop, int) else stop or ()), device=idx.device)
    done, last = torch.zeros(idx.size(0), dtype=torch.bool, device=idx.device), idx[:, -1]
    training = model.training
    try:
        for _ in range(steps):
            model.eval()
            x = model.features(idx[:, -model.config.block_size :])[:, -1]  # (B,C)
            logits = model.head(x)
            drawn = pick_next(
                logits, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator
            )
            last = torch.where(done, last, drawn)
            yield last
            done |= torch.isin(last, stops)
            if done.all():
                return
            idx = torch.cat((idx, last[:, None]), 1)
    finally:
        model.train(training)
