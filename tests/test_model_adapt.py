"""Layers of a finished model are replaced, and put back; nothing else changes."""

import copy

import pytest
import torch
from sharp_model import V, model, prompts, written

from model import few_rows
from model.adapt.few_rows import ROWS, FewRowsLinear, faster_cut, undo
from model.adapt.packed_linear import PackedLinear, can_pack, packed, unpacked


@pytest.fixture
def always(monkeypatch):
    """Pieces win every measurement, and no matrix is too small."""
    monkeypatch.setattr("model.adapt.few_rows.faster_cut", lambda layers, rows: True)
    monkeypatch.setattr("model.adapt.few_rows.NUMEL", 0)


@pytest.mark.parametrize(("n_out", "bias"), [(7, True), (8, False), (1, True)])
def test_few_rows_is_a_linear_layer(always, n_out, bias):
    """Outputs and gradients, of rows below and above its limit, in any shape."""
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
    monkeypatch.setattr("model.adapt.few_rows.faster_cut", lambda layers, rows: True)
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


def test_few_rows_in_half_precision(always):
    half = few_rows(model().bfloat16())
    assert type(half.head) is FewRowsLinear
    assert written(half, prompts(), 3)[0].shape == (3, 3)


@pytest.mark.parametrize("tie", [True, False])
def test_few_rows_is_undone(always, tie):
    """Plain nn.Linear everywhere, the same parameters (not copies), ties, mode and logits."""
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


def test_few_rows_leaves_alone_what_is_more_than_a_linear_layer(always):
    """A hook, or a layer of another class, would be lost by replacing it."""

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


@pytest.mark.parametrize("wins", [True, False])
def test_few_rows_replaces_what_is_measured_to_be_faster(monkeypatch, wins):
    """On a Xeon with AVX-512 pieces took twice the time of nn.Linear, and were taken all the same.

    A shape is measured once, by all of its layers, with the rows that will be read.
    """
    asked = []

    def measured(layers, rows):
        asked.append((tuple(layers[0].weight.shape), len(layers), rows))
        return wins and layers[0].out_features == 128

    monkeypatch.setattr("model.adapt.few_rows.NUMEL", 32 * 32)
    monkeypatch.setattr("model.adapt.few_rows.faster_cut", measured)
    m = few_rows(model(), 5)
    assert sorted(asked) == [
        ((32, 32), 3, 5),
        ((32, 128), 3, 5),
        ((96, 32), 3, 5),
        ((128, 32), 3, 5),
    ]
    assert all((type(b.mlp.up) is FewRowsLinear) == wins for b in m.blocks)
    assert all(type(b.mlp.down) is torch.nn.Linear for b in m.blocks)


def test_faster_is_by_a_tenth_in_the_best_of_three_rounds(monkeypatch):
    """Two layers, whole and cut in turn; the first round, with its allocations, does not count."""
    layers = [torch.nn.Linear(4, 6) for _ in range(2)]
    for took, wins in [((9, 1, 3, 9, 2, 1.7, 4, 3), True), ((1, 0, 3, 9, 2, 1.9, 4, 3), False)]:
        now, clock = 0.0, []
        for seconds in took:
            clock += [now, now + seconds]
            now += seconds
        monkeypatch.setattr("model.adapt.few_rows.perf_counter", iter(clock).__next__)
        assert faster_cut(layers, 3) is wins


@pytest.fixture
def packs(monkeypatch):
    """oneDNN's layout wins every measurement, and no matrix is too small."""
    if not can_pack():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr("model.adapt.packed_linear.seconds", lambda groups, rows: [1.0, 0.5])
    monkeypatch.setattr("model.adapt.packed_linear.NUMEL", 0)


@pytest.mark.parametrize(("n_out", "bias"), [(7, True), (8, False), (1, True)])
def test_packed_is_a_linear_layer(packs, n_out, bias):
    """Outputs, in any shape; gradients, by the plain weight; what was learnt since is not seen."""
    a = torch.nn.Linear(6, n_out, bias=bias)
    (b,) = packed(torch.nn.Sequential(copy.deepcopy(a)), 3)
    assert type(b) is PackedLinear
    for shape in [(1, 6), (2, 6), (6,), (1, 1, 6), (2, 3, 6), (64, 6), (0, 6)]:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            assert a(x).shape == b(x).shape
            assert torch.allclose(a(x), b(x), atol=1e-6)
            assert b(x.T.contiguous().T).equal(b(x)) if x.ndim == 2 else True
        b(x).square().sum().backward()
        a(x).square().sum().backward()
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            assert torch.allclose(p.grad, q.grad, atol=1e-5)


@pytest.mark.parametrize("tie", [True, False])
def test_packed_writes_the_same_and_is_undone(packs, tie):
    """After few_rows, as the server has it: parameters, ties, names and ids stay."""
    m = model(tie_weights=tie, mlp="swiglu", pos="rope", n_kv_head=2)
    parameters, names = list(m.parameters()), list(m.state_dict())
    want = written(m, prompts(), 20, temperature=0)[0]
    assert packed(few_rows(m), 3) is m
    assert sum(type(layer) is PackedLinear for layer in m.modules()) == 3 * 5 + 1
    assert torch.equal(written(m, prompts(), 20, temperature=0)[0], want)
    assert unpacked(m) is m
    assert not any(isinstance(layer, PackedLinear) for layer in m.modules())
    assert all(p is q for p, q in zip(parameters, m.parameters(), strict=True))
    assert list(m.state_dict()) == names


def test_packed_leaves_alone_what_it_should(monkeypatch):
    """Half precision, what is slower so, a torch without the operators."""
    monkeypatch.setattr("model.adapt.packed_linear.NUMEL", 0)
    monkeypatch.setattr("model.adapt.packed_linear.seconds", lambda groups, rows: [1.0, 0.95])
    for m in packed(model(), 2), packed(model().bfloat16(), 2):
        assert not any(isinstance(layer, PackedLinear) for layer in m.modules())
    monkeypatch.setattr("model.adapt.packed_linear.seconds", lambda groups, rows: [1.0, 0.5])
    assert not any(isinstance(x, PackedLinear) for x in packed(model().bfloat16(), 2).modules())
    monkeypatch.setattr("model.adapt.packed_linear.can_pack", lambda: False)
    assert not any(isinstance(x, PackedLinear) for x in packed(model(), 2).modules())
