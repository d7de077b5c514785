"""Pruning by hand, beside slow references, and beside the dense model with zeros in its place."""

import copy

import pytest
import torch
from hub_models import model as small_model

from model.adapt.gptq import error, moments
from model.adapt.prune import (
    block_influence,
    fewer_channels,
    fewer_heads,
    fewer_layers,
    importance,
    kept_2_of_4,
    kept_share,
    refitted,
    sparse,
    wanda_score,
    without_blocks,
    zeros_of,
)

IDS = torch.randint(300, (6, 40), generator=torch.Generator().manual_seed(0))
W = torch.tensor([[1.0, -2, 3, -4], [4, 3, -2, 1], [-1, 1, 5, 0.5]])


def half(score):
    return kept_share(score, 0.5)


def logits(model):
    with torch.no_grad():
        return model(IDS)[0]


def test_the_lowest_of_each_row_go():
    kept = [[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0]]  # of two equal ones the first goes
    assert kept_share(W.abs(), 0.5).int().tolist() == kept
    assert kept_share(W.abs(), 0.25).sum(1).tolist() == [3, 3, 3]
    assert kept_share(W.abs(), 0.1).all()  # less than half a weight


def test_two_of_four_neighbours_go():
    wide = torch.cat((W, 10 * W), 1)
    four = [[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0]]
    assert kept_2_of_4(wide.abs()).int().tolist() == [2 * row for row in four]
    assert half(wide.abs()).int().tolist()[0] == [0, 0, 0, 0, 1, 1, 1, 1]
    with pytest.raises(ValueError, match="a multiple of 4 weights, not 6"):
        kept_2_of_4(torch.ones(2, 6))


def test_wanda_weighs_by_the_inputs():
    """Inputs of norm 5, 1, 0, 2 over two tokens."""
    x = torch.tensor([[3.0, 1, 0, 0], [4, 0, 0, -2]])
    score = wanda_score(W, x.T @ x)
    assert score.tolist() == [[5, 2, 0, 8], [20, 3, 0, 2], [5, 1, 0, 1]]
    assert half(score).int().tolist() == [[1, 0, 0, 1], [1, 1, 0, 0], [1, 0, 0, 1]]


def slow_wanda(model, sparsity):
    """Each block's inputs caught by a hook, each row pruned by itself, weight by weight."""
    model = copy.deepcopy(model)
    for block in model.blocks:
        seen = {}
        layers = {n: m for n, m in block.named_modules() if isinstance(m, torch.nn.Linear)}
        hooks = [
            m.register_forward_hook(
                lambda m, x, y, n=n, seen=seen: seen.update({n: x[0].flatten(0, 1)})
            )
            for n, m in layers.items()
        ]
        model(IDS)
        for hook in hooks:
            hook.remove()
        for n, m in layers.items():
            norm = [float(seen[n][:, j].norm()) for j in range(m.in_features)]
            for row in m.weight:
                score = [abs(float(w)) * norm[j] for j, w in enumerate(row)]
                for j in sorted(range(len(row)), key=lambda j: score[j])[
                    : int(sparsity * len(row))
                ]:
                    row[j] = 0
    return model


@torch.no_grad()
def test_wanda_is_the_slow_one():
    m = small_model("llama", n_layer=2)
    assert not torch.equal(logits(m), logits(slow_wanda(m, 0.5)))
    torch.testing.assert_close(
        logits(sparse(m, half, IDS)), logits(slow_wanda(m, 0.5)), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("ids", [None, IDS])
@pytest.mark.parametrize("keep", [half, kept_2_of_4])
def test_sparse_leaves_the_dense_model_as_it_is(kind, ids, keep):
    """Half of each block's matrices is 0; embedding, head, norms and biases are shared."""
    m = small_model(kind, tie_weights=True)
    before = copy.deepcopy(m.state_dict())
    pruned = sparse(m, keep, ids)
    assert zeros_of(pruned) == 0.5
    assert zeros_of(m) < 0.01
    assert all(torch.equal(t, before[name]) for name, t in m.state_dict().items())
    assert pruned.head.weight is pruned.tok_emb.weight
    assert pruned.tok_emb.weight.data_ptr() == m.tok_emb.weight.data_ptr()
    for name, p in pruned.named_parameters():
        inside = name.startswith("blocks.") and p.ndim == 2
        kept = p != 0 if inside else torch.ones_like(p, dtype=torch.bool)
        assert torch.equal(p[kept], before[name][kept])


def test_importance_by_hand():
    """Two parts of two inputs: the sum over tokens of |W_p x_p|^2."""
    x = torch.tensor([[1.0, 2, 3, 4], [0, 1, -1, 2]])
    by_hand = [float(sum((W[:, p] @ t[p]).square().sum() for t in x)) for p in ([0, 1], [2, 3])]
    assert importance(W, x.T @ x, 2).tolist() == pytest.approx(by_hand)
    each = [float((x[:, j].square().sum()) * W[:, j].square().sum()) for j in range(4)]
    assert importance(W, x.T @ x, 4).tolist() == pytest.approx(each)


def test_refitting_is_least_squares():
    """Nearer than leaving columns out, and where what goes is a copy, exact."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200, 12, generator=g) @ torch.randn(12, 12, generator=g)
    w, H, kept = torch.randn(5, 12, generator=g), x.T @ x, torch.arange(9)

    def error_of(part):
        whole = torch.zeros_like(w)
        whole[:, kept] = part
        return error(w, whole, H)

    exact = torch.linalg.lstsq(x[:, kept], x @ w.T).solution.T
    assert error_of(exact) <= error_of(refitted(w, H, kept)) < 0.8 * error_of(w[:, kept])
    assert error_of(refitted(w, H, kept)) < 1.1 * error_of(exact)
    twice = torch.cat((x, x[:, :3]), 1)
    wide = torch.cat((w, torch.ones(5, 3)), 1)
    y = twice[:, :12] @ refitted(wide, twice.T @ twice, torch.arange(12)).T
    assert float((y - twice @ wide.T).norm() / y.norm()) < 0.05


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("norm_at", ["pre", "post"])
def test_a_model_without_channels_is_the_dense_one_with_zeros(kind, norm_at):
    m = small_model(kind, norm_at=norm_at, d_ff=96)
    pruned = fewer_channels(m, IDS, 0.34, refit=False)
    assert pruned.config.hidden == 64
    with torch.no_grad():
        for block, own in zip(m.blocks, pruned.blocks, strict=True):
            left = [list(row) for row in own.mlp.up.weight.tolist()]
            gone = [j for j, row in enumerate(block.mlp.up.weight.tolist()) if row not in left]
            assert len(gone) == 32
            block.mlp.down.weight[:, gone] = 0
    torch.testing.assert_close(logits(pruned), logits(m), rtol=1e-5, atol=1e-5)
    assert pruned.n_params() < m.n_params()


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize(("kind", "heads"), [("gpt2", 2), ("llama", 2)])
def test_a_model_without_heads_is_the_dense_one_with_zeros(kind, heads, qk_norm):
    """Of LLaMA's 4 heads, two share keys: both go."""
    m = small_model(kind, qk_norm=qk_norm)
    pruned = fewer_heads(m, IDS, 0.5, refit=False)
    c = pruned.config
    assert (c.n_head, c.kv_heads, c.head_size) == (heads, m.config.kv_heads // 2, 16)
    with torch.no_grad():
        for block, own in zip(m.blocks, pruned.blocks, strict=True):
            left = own.attn.qkv.weight[: heads * 16].tolist()
            q = block.attn.qkv.weight[:64].tolist()
            gone = [j for j, row in enumerate(q) if row not in left]
            block.attn.proj.weight[:, gone] = 0
    torch.testing.assert_close(logits(pruned), logits(m), rtol=1e-5, atol=1e-5)


def test_what_goes_adds_least():
    """The channels of least |W_j x_j|; with refitting the same, and a nearer model."""
    m = small_model("llama", n_layer=1, d_ff=96)
    exact = logits(m)
    block = m.blocks[0]
    H = moments(block, lambda: m(IDS))["mlp.down"]
    score = block.mlp.down.weight.square().sum(0) * H.diagonal()
    best = score.topk(64).indices.sort().values
    plain, refit = (fewer_channels(m, IDS, 0.34, refit=r) for r in (False, True))
    assert torch.equal(plain.blocks[0].mlp.up.weight, block.mlp.up.weight[best])
    assert torch.equal(refit.blocks[0].mlp.up.weight, block.mlp.up.weight[best])
    assert (logits(refit) - exact).norm() < 0.9 * (logits(plain) - exact).norm()


def test_layers_that_do_nothing_go_first():
    m = small_model("llama", n_layer=4)
    with torch.no_grad():
        for i in (1, 2):
            m.blocks[i].attn.proj.weight.zero_()
            m.blocks[i].mlp.down.weight.zero_()
    influence = block_influence(m, IDS)
    assert influence[1] == pytest.approx(0, abs=1e-5)
    assert min(influence[0], influence[3]) > 0.01
    pruned = fewer_layers(m, IDS, 2)
    assert pruned.config.n_layer == 2
    torch.testing.assert_close(logits(pruned), logits(m), rtol=1e-5, atol=1e-5)
    assert torch.equal(logits(without_blocks(m, [])), logits(m))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m: fewer_layers(m, IDS, 2), "drop=2 of 2 blocks; give 1 to 1"),
        (lambda m: fewer_layers(m, IDS, 0), "drop=0 of 2 blocks"),
        (lambda m: fewer_heads(m, IDS, 0.1), "of 2 groups of heads is 0; give 0.50 to 0.50"),
        (lambda m: fewer_heads(m, IDS, 0.9), "of 2 groups of heads is 2; give 0.50 to 0.50"),
        (lambda m: fewer_channels(m, IDS, 0.01), "leaves 96 of 96 channels; give 0.333 to 0.667"),
        (lambda m: fewer_channels(m, IDS, 0.99), "leaves 0 of 96 channels"),
    ],
)
def test_nothing_and_everything_cannot_go(call, says):
    with pytest.raises(ValueError, match=says):
        call(small_model("llama"))
