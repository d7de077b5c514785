"""Attention: two implementations, equal to each other and to plain loops; rotary positions."""

import math

import pytest
import torch
from torch.nn import functional as F

from model import GPTConfig, KVCache
from model.attention import (
    ATTEND,
    AUTO,
    CausalSelfAttention,
    attend_naive,
    attend_sdpa,
    causal_mask,
)
from model.positions import rope_table, rotate, sinusoid

IMPLEMENTATIONS = {"naive": attend_naive, "sdpa": attend_sdpa}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
SIZES = [(4, 4), (1, 1), (1, 5), (3, 5)]  # (T, S): a whole text, and the last T of S
HEADS = [6, 2, 1]  # K of 6 heads: multi-head, grouped, multi-query
WINDOWS = [0, 2, 4, 9]  # 0: all; 4: as long as a text; 9: longer than any


def qkv(T, S, dtype=torch.float64, B=2, H=6, K=6, D=4):
    """Random q (B,H,T,D) and k, v (B,K,S,D) that want gradients."""
    g = torch.Generator().manual_seed(10 * T + S)

    def draw(heads, n):
        return torch.randn(B, heads, n, D, generator=g, dtype=dtype).requires_grad_()

    return draw(H, T), draw(K, S), draw(K, S)


def by_loops(q, k, v, causal, window=0):
    """Attention with nothing but loops over rows, heads, queries and keys."""
    (B, H, T, D), (K, S) = q.shape, k.shape[1:3]
    q, k, v = q.detach(), k.detach(), v.detach()
    y = torch.zeros_like(q)
    for b in range(B):
        for h in range(H):
            for t in range(T):
                g, position = (
                    h // (H // K),
                    S - T + t,
                )  # the heads' group, and where the query stands
                seen = [s for s in range(S) if not causal or s <= position]
                seen = [s for s in seen if not window or abs(position - s) < window]
                dot = [float(q[b, h, t] @ k[b, g, s]) / math.sqrt(D) for s in seen]
                total = sum(math.exp(d) for d in dot)
                for d, s in zip(dot, seen, strict=True):
                    y[b, h, t] += math.exp(d) / total * v[b, g, s]
    return y


def test_causal_mask_by_hand():
    assert causal_mask(2, 3).tolist() == [[True, True, False], [True, True, True]]
    assert causal_mask(3, 3).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert causal_mask(1, 5).int().tolist() == [[1, 1, 1, 1, 1]]
    assert causal_mask(3, 5).int().sum(1).tolist() == [3, 4, 5]
    assert causal_mask(2, 2).dtype == torch.bool


def test_window_by_hand():
    """A window of 2 is the token and the one before it."""
    assert causal_mask(3, 3, window=2).int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    assert causal_mask(2, 5, window=3).int().tolist() == [[0, 1, 1, 1, 0], [0, 0, 1, 1, 1]]
    assert causal_mask(3, 3, window=9).equal(causal_mask(3, 3))
    both_ways = causal_mask(3, 4, causal=False, window=2).int().tolist()
    assert both_ways == [[1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]
    assert causal_mask(2, 3, causal=False).all()


@pytest.mark.parametrize("attend", IMPLEMENTATIONS.values())
@pytest.mark.parametrize("causal", [True, False])
def test_tensors_without_heads_are_refused(attend, causal):
    """(B,T,D), T = 1 or not causal, S = 5: `attend_naive` took T for the heads, T // S = 0 of them.

    It gave zeros and said nothing, where `attend_sdpa` gave the equation. Now both refuse.
    """
    for T in (1, 3):
        q, k = torch.randn(2, T, 4), torch.randn(2, 5, 4)
        with pytest.raises(ValueError, match=rf"\(2, {T}, 4\), \(2, 5, 4\), .*; give \(B,H,T,D\)"):
            attend(q, k, k, causal=causal)
        with pytest.raises(ValueError, match=r"give \(B,H,T,D\), \(B,K,S,D\)"):
            attend(q[:, None], k, k, causal=causal)


@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("K", [6, 2])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("attend", IMPLEMENTATIONS.values())
def test_a_mask_hides_more_keys(attend, causal, K, window):
    """Padding at the right of row 1, on top of causal and window: as if its keys were not there."""
    q, k, v = (t.detach() for t in qkv(5, 5, K=K))
    mask = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    mask[1, ..., 3:] = False
    how = {"causal": causal, "window": window}
    y = attend(q, k, v, **how, attn_mask=mask)
    torch.testing.assert_close(y[:1], attend(q[:1], k[:1], v[:1], **how))
    short = attend(q[1:, :, :3], k[1:, :, :3], v[1:, :, :3], **how)
    torch.testing.assert_close(y[1:, :, :3], short)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("K", HEADS)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("T", "S"), SIZES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_each_implementation_is_the_equation(implementation, T, S, causal, K, window):
    q, k, v = (t.detach() for t in qkv(T, S, K=K))
    y = IMPLEMENTATIONS[implementation](q, k, v, causal=causal, window=window)
    assert y.shape == q.shape
    torch.testing.assert_close(y, by_loops(q, k, v, causal, window), rtol=0, atol=1e-10)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("K", HEADS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("T", "S"), SIZES)
def test_the_implementations_agree_in_outputs_and_gradients(T, S, causal, dtype, K, window):
    weight = torch.randn(2, 6, T, 4, generator=torch.Generator().manual_seed(1), dtype=dtype)
    found = []
    for attend in IMPLEMENTATIONS.values():
        q, k, v = qkv(T, S, dtype, K=K)
        y = attend(q, k, v, causal=causal, window=window)
        (y * weight).sum().backward()
        found.append((y, q.grad, k.grad, v.grad))
    for a, b in zip(*found, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a, b, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize(("K", "window"), [(6, 0), (2, 3)])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_dropout_keeps_the_expectation(implementation, K, window):
    n, p = 4000, 0.3
    q, k, v = (t.detach()[:1].expand(n, -1, -1, -1) for t in qkv(3, 5, torch.float32, K=K))
    whole = IMPLEMENTATIONS[implementation](q, k, v, window=window)
    torch.manual_seed(0)
    y = IMPLEMENTATIONS[implementation](q, k, v, window=window, dropout=p)
    assert not torch.equal(y, whole)
    error = y.std(0) / math.sqrt(n)
    assert ((y.mean(0) - whole[0]).abs() < 5 * error + 1e-6).all()


@pytest.mark.parametrize(("T", "S"), [(5, 5), (3, 5)])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_dropout_takes_the_share_asked_for(implementation, T, S):
    """q = 0 sees all 5 keys alike, and v = 1 shows each weight: 0, or 1/5 over 1 - p."""
    q, k, v = (
        torch.zeros(2000, 1, T, S),
        torch.zeros(2000, 1, S, S),
        torch.eye(S).expand(2000, 1, S, S),
    )
    torch.manual_seed(0)
    y = IMPLEMENTATIONS[implementation](q, k, v, causal=False, dropout=0.3)
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
    for rates in {"dropout": 0.5}, {"attn_dropout": 0.5}:
        layer = CausalSelfAttention(GPTConfig(n_head=2, d_model=8, attn=attn, **rates))
        x = torch.randn(2, 5, 8)
        assert not torch.equal(layer(x), layer(x))
        layer.eval()
        assert torch.equal(layer(x), layer(x))


def test_dropout_of_the_residual_stream_keeps_the_fused_kernel(monkeypatch):
    asked = []

    def attend(q, k, v, *, dropout, **kwargs):
        asked.append(dropout)
        return attend_sdpa(q, k, v, dropout=dropout, **kwargs)

    monkeypatch.setitem(ATTEND, "auto", attend)
    for rates in {"dropout": 0.5}, {"dropout": 0.1, "attn_dropout": 0.2}:
        CausalSelfAttention(GPTConfig(n_head=2, d_model=8, **rates))(torch.randn(2, 5, 8))
    assert asked == [0.0, 0.2]


@pytest.mark.parametrize("attn", ["sdpa", "naive"])
def test_the_layer_that_is_not_causal_looks_ahead(attn):
    """With a window, as far ahead as back; a mask with a cache, which makes its own, is refused."""
    config = GPTConfig(n_head=2, d_model=8, window=3, attn=attn)
    layer, x = CausalSelfAttention(config, causal=False), torch.randn(2, 8, 8)
    y = layer(x)
    x[0, 4] += 1
    same = torch.isclose(layer(x), y, atol=1e-6).all(-1)
    assert same.int().tolist() == [[1, 1, 0, 0, 0, 0, 0, 1], [1] * 8]
    cache = KVCache(GPTConfig(8, 8, 1, 2, 8), 2)
    with pytest.raises(ValueError, match="attn_mask with a cache"):
        layer(x, None, cache.layers[0], attn_mask=torch.ones(2, 1, 1, 8, dtype=torch.bool))


def test_auto_is_the_fused_kernel_where_torch_has_it():
    assert AUTO == "sdpa"
    assert ATTEND["auto"] is attend_sdpa


@pytest.mark.parametrize("attn", ["sdpa", "naive"])
def test_the_window_ends_the_view(attn):
    """With window=3, a change is seen by its own position and the next two."""
    layer = CausalSelfAttention(GPTConfig(n_head=2, d_model=8, window=3, attn=attn))
    x = torch.randn(2, 8, 8)
    y = layer(x)
    x[0, 2] += 1
    same = torch.isclose(layer(x), y, atol=1e-6).all(-1)
    assert same.int().tolist() == [[1, 1, 0, 0, 0, 1, 1, 1], [1] * 8]


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_qk_norm_takes_the_size_out_of_the_scores(norm):
    """Queries and keys ten times as long attend just the same; their gains turn it up."""
    torch.manual_seed(0)
    config = GPTConfig(n_head=2, d_model=8, n_kv_head=1, bias=False, norm=norm, qk_norm=True)
    layer, x = CausalSelfAttention(config), torch.randn(2, 5, 8)
    y = layer(x)
    with torch.no_grad():
        layer.qkv.weight[:12] *= 10  # 8 rows of q, 4 of k
    torch.testing.assert_close(layer(x), y, rtol=0, atol=1e-4)
    with torch.no_grad():
        layer.k_norm.weight *= 2
    assert not torch.isclose(layer(x), y, atol=1e-3).all()
    assert layer.q_norm.weight.shape == (4,)
    assert layer.q_norm.bias is None


def test_grouped_heads_are_heads_whose_keys_are_copies():
    """K=2 of H=4 gives what multi-head attention gives with each head of k and v written twice."""
    grouped = CausalSelfAttention(GPTConfig(n_head=4, d_model=16, n_kv_head=2))
    full, x = CausalSelfAttention(GPTConfig(n_head=4, d_model=16)), torch.randn(2, 5, 16)
    heads = [0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 7]  # of 4 q, 2 k, 2 v
    rows = torch.cat([torch.arange(4 * h, 4 * h + 4) for h in heads])
    full.qkv.weight.data, full.qkv.bias.data = grouped.qkv.weight[rows], grouped.qkv.bias[rows]
    full.proj = grouped.proj
    torch.testing.assert_close(grouped(x), full(x))


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


def test_rope_table_of_given_positions():
    """Rows of other positions wanted indexing by hand: now a tensor of any shape, (*shape, D/2)."""
    table = rope_table(40, 6, theta=500.0)
    for positions in (torch.tensor([[7, 0, 39], [3, 3, 1]]), torch.arange(5, 9), torch.tensor(4)):
        for given, whole in zip(rope_table(positions, 6, theta=500.0), table, strict=True):
            assert given.shape == (*positions.shape, 3)
            assert torch.equal(given, whole[positions])


def test_rotate_is_a_product_of_complex_numbers():
    x = torch.randn(2, 3, 5, 6)
    y = rotate(x, *rope_table(5, 6))
    angle = torch.outer(torch.arange(5.0), 1e4 ** (-torch.arange(3) / 3))
    turn = torch.polar(torch.ones(5, 3), angle)
    z = torch.complex(x[..., :3], x[..., 3:]) * turn
    torch.testing.assert_close(y, torch.cat((z.real, z.imag), -1))
    assert torch.equal(y[:, :, 0], x[:, :, 0])  # position 0 does not turn


def test_rope_sees_distances_only():
    cos, sin = (t.double() for t in rope_table(40, 8, theta=500.0))
    q, k = torch.randn(2, 1, 1, 8, dtype=torch.float64).unbind()
    at = lambda x, t: rotate(x[None], cos[t], sin[t])  # noqa: E731
    dot = [[float((at(q, t) * at(k, s)).sum()) for s in range(0, 30)] for t in range(10, 40)]
    for t in range(29):
        for s in range(29):
            assert dot[t + 1][s + 1] == pytest.approx(dot[t][s], abs=1e-5)  # float32 tables
    assert abs(dot[0][1] - dot[0][0]) > 1e-3


def test_sinusoid_is_the_papers_table():
    """PE(pos, 2i) = sin(pos / 10000^(2i/C)), PE(pos, 2i+1) = cos(the same)."""
    table = sinusoid(7, 6)
    assert table.shape == (7, 6)
    assert table[0].tolist() == [0, 1, 0, 1, 0, 1]
    for t in range(7):
        for i in range(3):
            angle = t / 10000 ** (2 * i / 6)
            assert table[t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


@pytest.mark.parametrize("window", [0, 3])
def test_bfloat16_on_the_cpu_is_computed_in_float32(window, monkeypatch):
    """The kernel's backward pass in bfloat16 took five times as long as in float32."""
    kernel, seen = F.scaled_dot_product_attention, []

    def spy(q, *args, **kwargs):
        seen.append((q.dtype, torch.is_autocast_enabled("cpu")))
        return kernel(q, *args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    g = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(2, 2, 6, 8, generator=g).bfloat16() for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        y = attend_sdpa(q.float(), k.float(), v, window=window)  # RoPE leaves q and k in float32
    assert seen == [(torch.float32, False)]
    exact = attend_naive(q.float(), k.float(), v.float(), window=window)
    torch.testing.assert_close(y, exact.bfloat16(), rtol=0.01, atol=0.01)
    attend_sdpa(q.double(), k.double(), v.double(), window=window)
    assert seen[1] == (torch.float64, False)


@pytest.mark.parametrize("name", ["naive", "sdpa"])
@pytest.mark.parametrize("mask", [torch.ones(2, 1, 1, 5), torch.ones(5, dtype=torch.bool)])
def test_a_mask_is_bool_and_has_four_dimensions(name, mask):
    """A mask of zeros and ones was added to the scores by one, and refused by the other."""
    q, k = torch.randn(2, 2, 3, 4), torch.randn(2, 2, 5, 4)
    with pytest.raises(ValueError, match="give 4-D bool"):
        ATTEND[name](q, k, k, causal=False, attn_mask=mask)
