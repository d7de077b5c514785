"""The step in few calls is the model's own step: the same ids, logits to rounding."""

import pytest
import torch
from sharp_model import POS, WAYS, S, model, prompts, written

from model import KVCache, few_rows
from model.attention import ATTEND
from model.generation.step import TRIALS, StepBlock, TokenStep, can_step

OTHERS = [
    {"norm": "rmsnorm", "mlp": "swiglu", "bias": False, "qk_norm": True, "pos": "rope"},
    {"norm_at": "post", "mlp": "relu2", "bias": False},
    {"norm_at": "post", "mlp": "geglu", "qk_norm": True},
    {"mlp": "relu", "tie_weights": False, "n_kv_head": 2},
    {"pos": "rope", "n_head": 2, "n_kv_head": 1, "head_dim": 10},
]


def steps_alike(m, steps=3 * S):
    """What is written by TokenStep, as `generate` does by itself, and by model.forward."""
    for rows in ([[1, 2, 3], [4], [5] * (S + 2)], [[1, 2, 3]], prompts().tolist()):
        ids, logits = written(m, rows, steps, seed=2, decode_step=m.hidden_states)
        same, near = written(m, rows, steps, seed=2)
        assert torch.equal(ids, same)
        assert (logits - near).abs().max() < 1e-5 * logits.abs().max()


@pytest.fixture
def blocks_read(monkeypatch):
    """How many blocks have read a token by StepBlock."""
    read, call = [], StepBlock.__call__

    def spy(*args):
        read.append(1)
        return call(*args)

    monkeypatch.setattr(StepBlock, "__call__", spy)
    return read


@pytest.mark.parametrize("pos", POS)
@pytest.mark.parametrize(("n_kv_head", "window", "attn"), WAYS)
def test_the_step_is_the_models(blocks_read, pos, n_kv_head, window, attn):
    """Far past the context, rows alone, of one length and of several; attn=naive keeps forward."""
    m = model(pos=pos, n_kv_head=n_kv_head, window=window, attn=attn)
    assert can_step(m) == (ATTEND[attn] is ATTEND["sdpa"])
    steps_alike(m)
    assert len(blocks_read) == (3 * 3 * 3 * S if can_step(m) else 0)


@pytest.mark.parametrize("kwargs", OTHERS)
def test_the_step_is_the_models_with_other_settings(blocks_read, kwargs):
    steps_alike(model(**kwargs))
    assert blocks_read


def test_the_step_calls_layers_that_are_more_than_linear(monkeypatch):
    monkeypatch.setattr("model.adapt.few_rows.NUMEL", 0)
    monkeypatch.setattr("model.adapt.few_rows.faster_cut", lambda layers, rows: True)
    steps_alike(few_rows(model(mlp="swiglu")))
    m, calls = model(), []
    for name in ("qkv", "proj"):
        layer = getattr(m.blocks[1].attn, name)
        layer.register_forward_hook(lambda *args: calls.append(1))
    assert can_step(m)
    written(m, [[1]], 5)
    assert len(calls) == 2 * 5


def test_a_model_that_is_more_than_ours_keeps_its_forward(blocks_read):
    """A hook on a block, a part of another class: what they do would be lost."""

    class Other(torch.nn.Module):
        def forward(self, x):
            return 2 * x

    a, b, calls = model(), model(), []
    a.blocks[0].mlp.register_forward_hook(lambda *args: calls.append(1))
    b.blocks[0].norm1 = Other()
    for m in (a, b):
        assert not can_step(m)
        written(m, [[1]], 5)
    assert len(calls) == 5
    assert not blocks_read
    c = model()
    c.blocks[1].mlp.forward = lambda x: x
    assert not can_step(c)
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *args: None)
    assert not can_step(model())
    handle.remove()
    assert can_step(model())


def test_the_step_sees_what_is_learnt_between_two_of_them():
    m = model()
    with torch.inference_mode():
        step, new = TokenStep(m), TokenStep
        for p in m.parameters():
            p.mul_(1.5)
        got, want = (f(prompts(B=2, T=1), KVCache(m.config, 2)) for f in (step, new(m)))
    assert torch.equal(got, want)


@pytest.mark.parametrize(("slow", "best"), [(1, 4), (4, 1)])
def test_steps_find_out_now_and_then_how_many_threads_are_best(monkeypatch, slow, best):
    """At 6 x 384, beside other programs, two threads waited for each other 12 times a token."""
    now, used, before = [0.0], [4], torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    monkeypatch.setattr("model.generation.step.perf_counter", lambda: now[0])
    monkeypatch.setattr("model.generation.step.AGAIN", 2 * TRIALS + 4)
    slower, m = [slow], model()
    m.tok_emb.register_forward_hook(
        lambda *args: now.append(now.pop() + 1 + (used[-1] == slower[0]))
    )
    step = TokenStep(m)
    with torch.inference_mode():
        for _ in range(2 * TRIALS + 3):
            step(prompts(B=1, T=1), KVCache(m.config, 1))
        with pytest.raises(ValueError, match="make one of 2"):
            step(prompts(B=2, T=1), KVCache(m.config, 1))
        slower[0] = best  # another program came, or went
        for _ in range(2 * TRIALS + 1):
            step(prompts(B=1, T=1), KVCache(m.config, 1))
    tried = [1, 4] * TRIALS
    first = tried if best == 1 else tried[::-1]
    assert used[1::2] == [*tried, *[best] * 4, *first, slow]
    assert set(used[2::2]) == {4}  # given back, also after the error
    monkeypatch.undo()
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("B", [1, 2, 3, 5])
def test_the_step_of_layers_in_pieces(monkeypatch, B):
    """Their output is a transposed view: of two rows with RoPE it could not be viewed as heads."""
    monkeypatch.setattr("model.adapt.few_rows.NUMEL", 0)
    monkeypatch.setattr("model.adapt.few_rows.faster_cut", lambda layers, rows: True)
    how = {"pos": "rope", "mlp": "swiglu", "n_kv_head": 2, "bias": False}
    m, cut = model(**how), few_rows(model(**how))
    rows = [[1, 2, 3 + i] for i in range(B)]
    assert torch.equal(written(cut, rows, 9, seed=1)[0], written(m, rows, 9, seed=1)[0])
