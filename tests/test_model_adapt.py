"""Layers of a finished model are replaced, and put back; nothing else changes."""

import copy

import pytest
import torch
from sharp_model import V, model, prompts, written

from model import few_rows
from model.adapt.few_rows import ROWS, FewRowsLinear, undo


@pytest.mark.parametrize(("n_out", "bias"), [(7, True), (8, False), (1, True)])
def test_few_rows_is_a_linear_layer(monkeypatch, n_out, bias):
    """Outputs and gradients, of rows below and above its limit, in any shape."""
    monkeypatch.setattr("model.adapt.few_rows.NUMEL", 0)
    a = torch.nn.Linear(6, n_out, bias=bias)
    (b,) = few_rows(torch.nn.Sequential(copy.deepcopy(a)))
    assert type(b) is FewRowsLinear
    b.pieces = 3
    for shape in [(1, 6), (2, 6), (6,), (1, 1, 6), (2, 3, 6), (ROWS, 6), (ROWS + 1, 6), (0, 6)]:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        assert a(x).shape == b(x).shape
        assert torch.allclose(a(x), b(x), atol=1e-6)
        for layer in (a, b):
            layer.zero_grad()
            layer(x).square().sum().backward()
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            assert torch.allclose(p.grad, q.grad, atol=1e-5)


def test_few_rows_changes_no_parameter(monkeypatch):
    """Values, names, ties and what is written stay; small matrices stay nn.Linear."""
    assert not any(type(m) is FewRowsLinear for m in few_rows(model()).modules())
    monkeypatch.setattr("model.adapt.few_rows.NUMEL", 32 * V)
    for tie in (True, False):
        a, b = model(tie_weights=tie, mlp="swiglu"), model(tie_weights=tie, mlp="swiglu")
        assert few_rows(b) is b
        assert (b.head.weight is b.tok_emb.weight) == tie
        assert sum(type(m) is FewRowsLinear for m in b.modules()) == 3 * 5 + 1  # all
        assert list(a.state_dict()) == list(b.state_dict())
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            assert torch.equal(p, q)
        got = [written(m, prompts(), 20, temperature=0)[0] for m in (a, b)]
        assert torch.equal(*got)


def test_few_rows_in_half_precision(monkeypatch):
    monkeypatch.setattr("model.adapt.few_rows.NUMEL", 0)
    half = few_rows(model().bfloat16())
    assert type(half.head) is FewRowsLinear
    assert written(half, prompts(), 3)[0].shape == (3, 3)


@pytest.mark.parametrize("tie", [True, False])
def test_few_rows_is_undone(monkeypatch, tie):
    """Plain nn.Linear everywhere, the same parameters (not copies), ties, mode and logits."""
    monkeypatch.setattr("model.adapt.few_rows.NUMEL", 0)
    m, idx = model(tie_weights=tie), prompts()
    parameters, names, want = list(m.parameters()), list(m.state_dict()), m(idx)[0]
    random_state = torch.get_rng_state()
    assert few_rows(m).head.training is False
    assert undo(m) is m
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(isinstance(layer, FewRowsLinear) for layer in m.modules())
    assert m.head.training is False
    assert list(m.state_dict()) == names
    assert all(p is q for p, q in zip(parameters, m.parameters(), strict=True))
    assert torch.equal(m(idx)[0], want)
    assert (m.head.weight is m.tok_emb.weight) == tie


def test_few_rows_leaves_alone_what_is_more_than_a_linear_layer(monkeypatch):
    """A hook, or a layer of another class, would be lost by replacing it."""
    monkeypatch.setattr("model.adapt.few_rows.NUMEL", 0)

    class Other(torch.nn.Linear):
        pass

    m, calls = model(), []
    m.head.register_forward_hook(lambda *args: calls.append(1))
    m.blocks[0].mlp.up = Other(32, 128)
    few_rows(m)
    assert type(m.head) is torch.nn.Linear
    assert type(m.blocks[0].mlp.up) is Other
    assert type(m.blocks[0].mlp.down) is FewRowsLinear
    m(prompts())
    assert calls == [1]
