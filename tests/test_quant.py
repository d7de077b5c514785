"""Weights in 8 and 4 bits: what the integers stand for, the kernels' road, there and back."""

import copy

import numpy as np
import pytest
import torch
from hub_models import model as small_model
from torch import nn

import model.adapt.quant as quant
from model import generate
from model.adapt.quant import (
    QuantLinear,
    count,
    dequantize,
    quantize,
    quantized_layers,
    restore,
)
from model.adapt.rounding import (
    Codes,
    codes_of,
    int4_codes,
    int8_codes,
    packed,
    unpacked,
    values,
)
from model.generation.step import can_step

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])
WAYS = [(8, 32, 8), (4, 32, 8), (4, 32, 4), (4, 64, 32)]  # bits, group, embedding_bits


@pytest.fixture(params=["gpt2", "llama"])
def model(request):
    return small_model(request.param, d_ff=128)


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(ids)[0]


def by_numpy(w, bits, group):
    """The values of the integers, from the equations, group by group."""
    w, f = w.numpy(), np.float32
    if bits == 8:
        scale = np.abs(w).max(1, keepdims=True) / f(127)
        return np.rint(w / np.where(scale == 0, f(1), scale)) * scale
    out = np.empty_like(w)
    for i, row in enumerate(w):
        for j in range(0, len(row), group):
            g = row[j : j + group]
            scale = f(np.float16((g.max() - g.min()) / f(15)))
            zero = f(np.float16(g.min()))
            q = np.clip(np.rint((g - zero) / (scale or f(1))), 0, 15)
            out[i, j : j + group] = scale * q + zero
    return out


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("group", [32, 64])
def test_values_are_those_of_the_equations(bits, group):
    w = torch.randn(6, 128, generator=torch.Generator().manual_seed(0))
    w[1], w[2, 32:64], w[3] = 0, 0.25, w[3] * 1e-3
    found = values(codes_of(w, bits, group)).numpy()
    np.testing.assert_allclose(found, by_numpy(w, bits, group), rtol=1e-5, atol=1e-7)
    step = (w.max() - w.min()) / (2 * (127 if bits == 8 else 7.5))
    assert np.abs(found - w.numpy()).max() <= step


def test_numbers_by_hand():
    w = torch.tensor([[127.0, -1.4, 0.6, 3.5], [0.0, 0.0, 0.0, 0.0]])
    codes = int8_codes(w)
    assert codes.q.tolist() == [[127, -1, 1, 4], [0, 0, 0, 0]]
    assert codes.scale.tolist() == [[1.0], [0.0]]
    assert values(codes).tolist() == [[127.0, -1.0, 1.0, 4.0], [0.0, 0.0, 0.0, 0.0]]
    w = torch.cat((torch.tensor([[-3.0, 27.0, 0.9, 1.1]]), torch.zeros(1, 28)), 1)
    codes = int4_codes(w, 32)  # 16 values from -3 to 27, 2 apart
    assert (codes.scale.tolist(), codes.zero.tolist()) == ([[2.0]], [[-3.0]])
    assert unpacked(codes.q)[0, :4].tolist() == [0, 15, 2, 2]
    assert values(codes)[0, :4].tolist() == [-3.0, 27.0, 1.0, 1.0]


def test_two_integers_a_byte():
    assert packed(torch.tensor([[1, 2, 3, 4]])).tolist() == [[0x21, 0x43]]
    q = torch.randint(0, 16, (3, 64), dtype=torch.uint8)
    assert torch.equal(unpacked(packed(q)), q)


def test_a_grid_of_16_values_is_kept_exactly():
    """A file of 4 bits, whose blocks use both ends of their grid, is rounded to itself."""
    q = torch.randint(0, 16, (5, 96), generator=torch.Generator().manual_seed(1))
    q[:, ::32], q[:, 1::32] = 0, 15
    w = 0.125 * q - 0.75
    codes = int4_codes(w, 32)
    assert torch.equal(unpacked(codes.q), q.to(torch.uint8))
    assert torch.equal(values(codes), w)


@pytest.mark.parametrize(("bits", "group", "embedding_bits"), WAYS)
def test_the_model_is_that_of_the_values(model, bits, group, embedding_bits):
    """With many rows logits are equal to the bit; by the kernels they are to bfloat16's 1e-2."""
    float_model = copy.deepcopy(model)
    quantize(model, bits, group, embedding_bits)
    for name, layer in quantized_layers(model).items():
        w = float_model.get_submodule(name).weight.detach()
        expected = by_numpy(w, layer.codes.bits, group)
        np.testing.assert_allclose(layer.weight.numpy(), expected, rtol=1e-4, atol=1e-6)
    many = torch.randint(300, (2, 40), generator=torch.Generator().manual_seed(0))
    by_floats, by_kernel = logits(model, many), logits(model)
    dequantize(model)
    assert not quantized_layers(model)
    assert torch.equal(logits(model, many), by_floats)
    off = (logits(model) - by_kernel).norm() / by_kernel.norm()
    assert 0 < off < 1e-2
    assert model.state_dict().keys() == float_model.state_dict().keys()
    assert model.n_params() == float_model.n_params()
    rounded = (logits(float_model) - logits(model)).norm() / by_kernel.norm()
    assert rounded < (0.03 if bits == 8 else 0.3)


@pytest.mark.parametrize(("bits", "group", "embedding_bits"), WAYS)
def test_a_state_dict_makes_the_model_again(model, bits, group, embedding_bits):
    n = model.n_params()
    other = small_model("llama" if model.config.gated else "gpt2", seed=5, d_ff=128)
    quantize(model, bits, group, embedding_bits)
    state = model.state_dict()
    assert not [
        key for key in state if "laid_out" in key or "kernel" in key
    ]  # a layout of this CPU
    restore(other, state).load_state_dict(state, assign=True)
    if embedding_bits == 32 and model.config.tie_weights:
        other.head.weight = other.tok_emb.weight  # as assembled() does
    assert torch.equal(logits(other), logits(model))
    assert count(other) == count(model) == n


def test_loading_other_integers_lays_them_out_again(model):
    """The kernel's layout was made once: a layer went on multiplying by what it was built of."""
    other = quantize(small_model("llama" if model.config.gated else "gpt2", seed=5, d_ff=128), 4)
    quantize(model, 4).load_state_dict(other.state_dict())
    assert torch.equal(logits(model), logits(other))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(48, 64), (16, 32), (40, 96)])  # 40: no kernel of 4 bits
def test_a_layer_by_its_kernel(bits, bias, shape):
    layer = nn.Linear(shape[1], shape[0], bias)
    made = QuantLinear(codes_of(layer.weight.detach(), bits, 32), layer.bias)
    assert bool(made.kernel) == (bits == 8 or shape[0] != 40)
    for size in ((1, shape[1]), (3, 2, shape[1]), (5, 7, shape[1]), (0, shape[1]), shape[1:]):
        x = torch.randn(size)
        expected = nn.functional.linear(x, made.weight, layer.bias)
        found = made(x)
        assert found.shape == expected.shape
        assert found.dtype == torch.float32
        assert (found - expected).norm() <= 1e-2 * expected.norm()
        assert torch.equal(made(x), found)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_row_is_as_alone(bits):
    layer = QuantLinear(codes_of(torch.randn(48, 64), bits, 32))
    x = torch.randn(9, 64)
    assert torch.equal(layer(x)[4:5], layer(x[4:5]))


def test_a_width_that_the_kernel_reads_past_has_none():
    """torch's product of int8 crashes, or is wrong, where K is no multiple of 16."""
    for K, kernel in ((20, False), (33, False), (48, True)):
        layer = QuantLinear(int8_codes(torch.randn(24, K)))
        x = torch.randn(5, K)
        assert bool(layer.kernel) == kernel
        expected = x @ layer.weight.T
        assert (layer(x) - expected).norm() <= 1e-2 * expected.norm()


def test_without_the_operator_numbers_are_the_same(model, monkeypatch):
    """What an older torch, or another device, does."""
    expected = logits(quantize(copy.deepcopy(model), 4))
    monkeypatch.setattr(quant, "aten", object())
    found = logits(quantize(model, 4))
    assert not any(m.kernel for m in model.modules() if isinstance(m, QuantLinear))
    assert (found - expected).norm() < 1e-2 * expected.norm()


def test_gradients_pass_through(model):
    """To what lies below: the kernels have none, so the weights are made floats."""
    layer = QuantLinear(int4_codes(torch.randn(16, 32), 32))
    x = torch.randn(2, 32, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(2, 32))


@pytest.mark.parametrize("bits", [8, 4])
def test_it_writes_with_a_cache_in_few_calls(model, bits):
    quantize(model, bits)
    assert can_step(model)
    cached, plain = (
        [ids.tolist() for ids in generate(model, IDS, 20, temperature=0, cache=cache)]
        for cache in (True, False)
    )
    assert cached == plain


def test_a_tied_head_shares_its_integers():
    tied = quantize(small_model("gpt2"), 4)
    assert tied.head.q.data_ptr() == tied.tok_emb.q.data_ptr()
    assert dequantize(tied).head.weight is tied.tok_emb.weight


@pytest.mark.parametrize(
    ("change", "kwargs", "says"),
    [
        ({}, {"bits": 4, "group": 48}, "group=48 must be one of 32, 64, 128"),
        ({}, {"bits": 4, "group": 128}, "qkv: a row of 64 weights is less than a group of 128; "),
        ({"d_ff": 96}, {"bits": 4, "group": 64}, "group=64 does not divide a row of 96 weights"),
        (
            {"d_model": 16},
            {"bits": 4},
            "a row of 16 weights is less than a group of 32; take --int8",
        ),
        ({}, {"bits": 3}, "bits=3 must be 4 or 8"),
    ],
)
def test_what_cannot_be_is_refused_and_the_model_stays(change, kwargs, says):
    model = small_model("llama", **change)
    before = logits(model)
    with pytest.raises(ValueError, match=says):
        quantize(model, **kwargs)
    assert torch.equal(logits(model), before)
    assert not quantized_layers(model)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e5])
def test_weights_that_cannot_be_rounded(bad):
    model = small_model("gpt2")
    model.blocks[1].mlp.up.weight.data[3, 5] = bad
    with pytest.raises(ValueError, match=r"blocks\.1\.mlp\.up: a weight of (nan|inf|1e5|100000)"):
        quantize(model, 4)


def test_once_is_enough():
    with pytest.raises(ValueError, match="quantized already"):
        quantize(quantize(small_model("gpt2"), 8), 4)


def test_codes_of_another_model_are_refused():
    state = quantize(small_model("gpt2"), 4).state_dict()
    with pytest.raises(ValueError, match=r"mlp.down has codes .* not of \(64, 96\)"):
        restore(
            small_model("llama", tie_weights=True),
            {
                "blocks.0.mlp.down.q": torch.zeros(64, 64, dtype=torch.uint8),
                "blocks.0.mlp.down.scale": torch.zeros(64, 4).half(),
                "blocks.0.mlp.down.zero": torch.zeros(64, 4).half(),
            },
        )
    with pytest.raises(ValueError, match="of no layer"):
        restore(small_model("gpt2", n_layer=1), state)


def test_rows_of_codes():
    codes = int4_codes(torch.randn(5, 64), 32)
    rows = torch.tensor([3, 0, 3])
    assert torch.equal(values(codes[rows]), values(codes)[rows])
    assert (codes.bits, codes.group, codes.shape) == (4, 32, (5, 64))
    assert Codes(codes.q.view(torch.int8), torch.ones(5, 1)).shape == (5, 32)
