"""Rounding by what layers read: GPTQ beside a slow reference, scales that change nothing."""

import copy

import pytest
import torch
from hub_models import model as small_model

from model.adapt.gptq import DAMP, balance, best_scale, error, gptq, gptq_codes, moments
from model.adapt.quant import dequantize, quantize
from model.adapt.rounding import int4_codes, unpacked, values

IDS = torch.randint(300, (6, 40), generator=torch.Generator().manual_seed(0))


def correlated(n, K, seed=0):
    """Inputs (n,K) that hang together, some of them large."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, K // 4, generator=g) @ torch.randn(K // 4, K, generator=g)
    return (x + 0.3 * torch.randn(n, K, generator=g)) * torch.linspace(0.1, 3, K)


def slow_gptq(w, H, group):
    """The same by eliminating each column from H^-1, without Cholesky, row by row in float64."""
    K = len(H)
    H = H.double()
    H = H + torch.diag((H.diagonal() == 0).double() + DAMP * H.diagonal().mean())
    out = torch.empty(w.shape, dtype=torch.float64)
    for i, row in enumerate(w.double()):
        row, inverse = row.clone(), torch.linalg.inv(H)
        for j in range(K):
            if j % group == 0:
                part = row[j : j + group].float()
                scale = ((part.max() - part.min()) / 15).half()
                zero = part.min().half()
            q = ((row[j] - zero) / scale).round().clamp(0, 15)
            out[i, j] = q * scale + zero
            row = row - (row[j] - out[i, j]) / inverse[j, j] * inverse[j]
            inverse = inverse - torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
            inverse[j] = inverse[:, j] = 0
            inverse[j, j] = 1  # is not read again
    return out.float()


def test_gptq_is_the_slow_one():
    w = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    x = correlated(200, 64)
    H = x.T @ x
    found, expected = values(gptq_codes(w, H, 32)), slow_gptq(w, H, 32)
    same = torch.isclose(found, expected, atol=1e-3).float().mean()
    assert same > 0.95  # a tie that rounds the other way moves the rest of its row
    assert error(w, found, H) == pytest.approx(error(w, expected, H), rel=0.1)


@pytest.mark.parametrize("group", [32, 64])
def test_its_error_is_smaller_than_that_of_rounding(group):
    w = torch.randn(24, 128, generator=torch.Generator().manual_seed(2))
    x = correlated(400, 128)
    H = x.T @ x
    plain = error(w, values(int4_codes(w, group)), H)
    assert error(w, values(gptq_codes(w, H, group)), H) < 0.7 * plain
    D = w - values(int4_codes(w, group))
    assert plain == pytest.approx(float((x @ D.T).square().sum()), rel=1e-3)


def test_without_correlation_it_is_rounding():
    w = torch.randn(6, 64)
    codes, plain = gptq_codes(w, torch.eye(64) * 7, 32), int4_codes(w, 32)
    assert torch.equal(unpacked(codes.q), unpacked(plain.q))


def test_inputs_that_are_never_there():
    x = correlated(300, 64)
    x[:, [3, 40]] = 0
    w = torch.randn(5, 64)
    assert values(gptq_codes(w, x.T @ x, 32)).isfinite().all()
    assert values(gptq_codes(w, torch.zeros(64, 64), 32)).isfinite().all()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_moments_are_of_what_layers_read(kind):
    m = small_model(kind, d_ff=128)
    with torch.no_grad():
        H = moments(m.blocks[0], lambda: m(IDS))
        x = m.blocks[0].norm1(m.embed(IDS, slice(40))).flatten(0, 1)
    torch.testing.assert_close(H["attn.qkv"], x.T @ x, rtol=1e-4, atol=1e-3)
    assert len(H) == (5 if m.config.gated else 4)
    assert not m.blocks[0].attn.qkv._forward_pre_hooks


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_model_is_nearer_than_by_rounding(kind):
    m = small_model(kind, d_ff=128)
    before = {name: t.clone() for name, t in m.state_dict().items()}
    made = gptq(m, IDS, 32)
    assert all(torch.equal(t, before[name]) for name, t in m.state_dict().items())
    with torch.no_grad():
        exact = m(IDS)[0]
        off = [
            (dequantize(quantize(copy.deepcopy(m), 4, made=codes))(IDS)[0] - exact).norm()
            for codes in (made, None)
        ]
    assert off[0] < 0.9 * off[1]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_balanced_the_model_computes_the_same(kind):
    m = small_model(kind, d_ff=128, n_kv_head=2)
    with torch.no_grad():
        for block in m.blocks:  # some inputs much larger than others, as in trained models
            block.norm1.weight[::8] *= 20
            block.norm2.weight[::8] *= 20
        exact = m(IDS)[0]
        plain = (dequantize(quantize(copy.deepcopy(m), 4))(IDS)[0] - exact).norm()
        other = balance(copy.deepcopy(m), IDS, 32)
        torch.testing.assert_close(other(IDS)[0], exact, rtol=1e-3, atol=1e-3)
        assert not torch.equal(other.blocks[0].norm1.weight, m.blocks[0].norm1.weight)
        assert (dequantize(quantize(other, 4))(IDS)[0] - exact).norm() < 0.9 * plain


def test_the_best_scale_is_never_worse_than_none():
    layer = torch.nn.Linear(64, 16)
    x = correlated(200, 64)
    H = x.T @ x
    with torch.no_grad():
        s = best_scale([layer], H, 32)
        scaled = values(int4_codes(layer.weight * s, 32)) / s
        assert error(layer.weight, scaled, H) <= error(
            layer.weight, values(int4_codes(layer.weight, 32)), H
        )


def test_post_norm_has_no_scales():
    with pytest.raises(ValueError, match="norm_at=post: scales need norm_at pre"):
        balance(small_model("gpt2", norm_at="post"), IDS, 32)
