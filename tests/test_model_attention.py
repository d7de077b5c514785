"""Attention: two roads that agree with each other and with plain loops, and rotary positions."""

import math

import pytest
import torch

from model import GPTConfig
from model.attention import CausalSelfAttention, attend_naive, attend_sdpa, causal_mask
from model.positions import rope_table, rotate

ROADS = {"naive": attend_naive, "sdpa": attend_sdpa}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
SIZES = [(4, 4), (1, 1), (1, 5), (3, 5)]  # (T, S): a whole text, and the last T of S


def qkv(T, S, dtype=torch.float64, B=2, H=3, D=4):
    """Random q (B,H,T,D) and k, v (B,H,S,D) that want gradients."""
    g = torch.Generator().manual_seed(10 * T + S)

    def draw(n):
        return torch.randn(B, H, n, D, generator=g, dtype=dtype).requires_grad_()

    return draw(T), draw(S), draw(S)


def by_loops(q, k, v, causal):
    """Attention with nothing but loops over rows, heads, queries and keys."""
    (B, H, T, D), S = q.shape, k.size(2)
    q, k, v = q.detach(), k.detach(), v.detach()
    y = torch.zeros_like(q)
    for b in range(B):
        for h in range(H):
            for t in range(T):
                seen = range(S - T + t + 1) if causal else range(S)
                dot = [float(q[b, h, t] @ k[b, h, s]) / math.sqrt(D) for s in seen]
                total = sum(math.exp(d) for d in dot)
                for s in seen:
                    y[b, h, t] += math.exp(dot[s]) / total * v[b, h, s]
    return y


def test_causal_mask_by_hand():
    assert causal_mask(2, 3).tolist() == [[True, True, False], [True, True, True]]
    assert causal_mask(3, 3).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert causal_mask(1, 5).int().tolist() == [[1, 1, 1, 1, 1]]
    assert causal_mask(3, 5).int().sum(1).tolist() == [3, 4, 5]
    assert causal_mask(2, 2).dtype == torch.bool


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("T", "S"), SIZES)
@pytest.mark.parametrize("road", ROADS)
def test_each_road_is_the_equation(road, T, S, causal):
    q, k, v = (t.detach() for t in qkv(T, S))
    y = ROADS[road](q, k, v, causal=causal)
    assert y.shape == q.shape
    torch.testing.assert_close(y, by_loops(q, k, v, causal), rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("T", "S"), SIZES)
def test_the_roads_agree_in_outputs_and_gradients(T, S, causal, dtype):
    weight = torch.randn(2, 3, T, 4, generator=torch.Generator().manual_seed(1), dtype=dtype)
    found = []
    for attend in ROADS.values():
        q, k, v = qkv(T, S, dtype)
        y = attend(q, k, v, causal=causal)
        (y * weight).sum().backward()
        found.append((y, q.grad, k.grad, v.grad))
    for a, b in zip(*found, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a, b, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("road", ROADS)
def test_dropout_keeps_the_expectation(road):
    n, p = 4000, 0.3
    q, k, v = (t.detach()[:1].expand(n, -1, -1, -1) for t in qkv(3, 5, torch.float32))
    whole = ROADS[road](q, k, v)
    torch.manual_seed(0)
    y = ROADS[road](q, k, v, dropout=p)
    assert not torch.equal(y, whole)
    error = y.std(0) / math.sqrt(n)
    assert ((y.mean(0) - whole[0]).abs() < 5 * error + 1e-6).all()


@pytest.mark.parametrize(("T", "S"), [(5, 5), (3, 5)])
@pytest.mark.parametrize("road", ROADS)
def test_dropout_takes_the_share_asked_for(road, T, S):
    """q = 0 sees all 5 keys alike, and v = 1 shows each weight: 0, or 1/5 over 1 - p."""
    q, k, v = (
        torch.zeros(2000, 1, T, S),
        torch.zeros(2000, 1, S, S),
        torch.eye(S).expand(2000, 1, S, S),
    )
    torch.manual_seed(0)
    y = ROADS[road](q, k, v, causal=False, dropout=0.3)
    assert (y == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    torch.testing.assert_close(y[y != 0], torch.full_like(y[y != 0], 0.2 / 0.7))


@pytest.mark.parametrize("attn", ["auto", "sdpa", "naive"])
def test_the_layer_keeps_the_shape_and_hides_the_future(attn):
    torch.manual_seed(0)
    layer = CausalSelfAttention(GPTConfig(n_head=3, d_model=12, attn=attn))
    x = torch.randn(2, 5, 12)
    y = layer(x)
    assert y.shape == (2, 5, 12)
    x[0, 3] += 1
    changed = layer(x)
    assert torch.equal(changed[0, :3], y[0, :3])
    assert torch.equal(changed[1], y[1])
    assert not torch.isclose(changed[0, 3:], y[0, 3:]).any()


@pytest.mark.parametrize("attn", ["sdpa", "naive"])
def test_the_layer_drops_in_training_only(attn):
    layer = CausalSelfAttention(GPTConfig(n_head=2, d_model=8, dropout=0.5, attn=attn))
    x = torch.randn(2, 5, 8)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_heads_are_their_own():
    """Head 1 of the layer is the equation on columns D to 2D of q, k and v."""
    layer = CausalSelfAttention(GPTConfig(n_head=2, d_model=8, attn="naive"))
    torch.nn.init.eye_(layer.proj.weight)
    torch.nn.init.zeros_(layer.proj.bias)
    x = torch.randn(2, 5, 8)
    q, k, v = (layer.qkv(x)[..., i * 8 + 4 : i * 8 + 8][:, None] for i in range(3))  # (B,1,T,D)
    torch.testing.assert_close(layer(x)[..., 4:], by_loops(q, k, v, True)[:, 0])


def test_rope_table_by_hand():
    cos, sin = rope_table(3, 4, theta=100.0)  # two pairs: 1 and 1/10 radians a step
    assert cos.shape == sin.shape == (3, 2)
    for t in range(3):
        for i, angle in enumerate((t, t / 10)):
            assert cos[t, i].item() == pytest.approx(math.cos(angle), abs=1e-6)
            assert sin[t, i].item() == pytest.approx(math.sin(angle), abs=1e-6)


def test_rotate_is_a_product_of_complex_numbers():
    x = torch.randn(2, 3, 5, 6)
    y = rotate(x, *rope_table(5, 6))
    angle = torch.outer(torch.arange(5.0), 1e4 ** (-torch.arange(3) / 3))
    turn = torch.polar(torch.ones(5, 3), angle)
    z = torch.complex(x[..., :3], x[..., 3:]) * turn
    torch.testing.assert_close(y, torch.cat((z.real, z.imag), -1))
    assert torch.equal(y[:, :, 0], x[:, :, 0])  # place 0 does not turn


def test_rope_sees_distances_only():
    cos, sin = (t.double() for t in rope_table(40, 8, theta=500.0))
    q, k = torch.randn(2, 1, 1, 8, dtype=torch.float64).unbind()
    at = lambda x, t: rotate(x[None], cos[t], sin[t])  # noqa: E731
    dot = [[float((at(q, t) * at(k, s)).sum()) for s in range(0, 30)] for t in range(10, 40)]
    for t in range(29):
        for s in range(29):
            assert dot[t + 1][s + 1] == pytest.approx(dot[t][s], abs=1e-5)  # float32 tables
    assert abs(dot[0][1] - dot[0][0]) > 1e-3
