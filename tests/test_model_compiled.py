"""A step of generation that is compiled, or replaced: an argument, and the same ids."""

import shutil

import pytest
import torch
from sharp_model import POS, WAYS, S, model, prompts, written

from model import KVCache, generate
from model.generation.compiled import CompiledStep


def test_any_step_may_take_the_models_place():
    """It reads one token a row, prompts go through the model; without a cache it is refused."""
    m, shapes = model(), []

    def step(idx, cache):
        shapes.append(tuple(idx.shape))
        return m.hidden_states(idx, cache)

    want = written(m, prompts(), 2 * S, seed=1)
    got = written(m, prompts(), 2 * S, seed=1, decode_step=step)
    assert all(map(torch.equal, want, got))
    assert shapes == [(3, 1)] * (2 * S)
    twice = written(m, prompts(), 3, seed=1, decode_step=lambda *args: 2 * step(*args))[1]
    torch.testing.assert_close(twice[:, 0], 2 * want[1][:, 0])
    with pytest.raises(ValueError, match="decode_step needs the cache; leave out cache=False"):
        generate(m, prompts(), 3, cache=False, decode_step=step)


def steps_alike(m, steps=3 * S):
    """What is written by the model as it is, and with a CompiledStep, rows of other lengths."""
    rows = [[1, 2, 3], [4], [5] * (S + 2)]
    want = [written(m, idx, steps, seed=2) for idx in (rows, rows[:1])]
    step = CompiledStep(m)
    got = [written(m, idx, steps, seed=2, decode_step=step) for idx in (rows, rows[:1])]
    assert not {"hidden_states", "forward"} & set(vars(m))  # nothing is patched
    for (ids, logits), (same, close) in zip(want, got, strict=True):
        assert torch.equal(ids, same)
        assert (logits - close).abs().max() < 1e-5 * logits.abs().max()


@pytest.mark.parametrize("pos", POS)
@pytest.mark.parametrize(("n_kv_head", "window", "attn"), WAYS)
def test_a_step_of_fixed_shapes_is_the_same_step(monkeypatch, pos, n_kv_head, window, attn):
    """Without the compiler: slots and masks alone."""
    monkeypatch.setattr(torch, "compile", lambda step, **options: step)
    steps_alike(model(pos=pos, n_kv_head=n_kv_head, window=window, attn=attn))


@pytest.mark.parametrize("window", [0, 3])
def test_a_step_of_fixed_shapes_remembers_too(monkeypatch, window):
    monkeypatch.setattr(torch, "compile", lambda step, **options: step)
    steps_alike(model(pos="rope", window=window, emb_conv=3))


def test_a_step_of_fixed_shapes_is_one_program(monkeypatch):
    """Also after prompts of two tokens, whose first is read into a cache of one slot."""
    sizes = set()

    def spy(step, **options):
        return lambda *args: (sizes.add(args[2][0].size(-2)), step(*args))[1]

    monkeypatch.setattr(torch, "compile", spy)
    m = model()
    step = CompiledStep(m)
    for n in range(1, S + 2):
        written(m, [[1] * n], S, decode_step=step)
    assert sizes == {S}


@torch.no_grad()
def test_a_step_of_fixed_shapes_refuses_a_full_cache(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda step, **options: step)
    m = model()
    cache, step = KVCache(m.config, 2), CompiledStep(m)
    m.hidden_states(prompts(B=2, T=S), cache)
    with pytest.raises(ValueError, match=r"rows \[0, 1\] of the cache are full; make room"):
        step(prompts(B=2, T=1), cache)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_step_is_the_same_step():
    torch.compiler.reset()
    steps_alike(model(pos="rope", window=4))
