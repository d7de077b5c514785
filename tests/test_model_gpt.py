"""TinyGPT: shapes, losses, start, counts, and what each logit may know."""

import math

import pytest
import torch
from torch.nn import functional as F

from model import GPTConfig, TinyGPT
from model.gpt import Block

V = 31


def toy(seed=0, **kwargs):
    """A small model; the weights are blown up, so that a leak would show."""
    torch.manual_seed(seed)
    shape = {"vocab_size": V, "block_size": 12, "n_layer": 2, "n_head": 3, "d_model": 24}
    model = TinyGPT(GPTConfig(**{**shape, **kwargs}))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(5).add_(0.02 * torch.randn_like(p))
    return model


def ids(B=3, T=7, seed=1):
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))


EVERY = pytest.mark.parametrize(
    ("pos", "attn"), [(p, a) for p in ("learned", "rope") for a in ("sdpa", "naive")]
)


@EVERY
def test_logits_of_every_place_and_loss_with_targets(pos, attn):
    model, x = toy(pos=pos, attn=attn), ids()
    logits, loss = model(x)
    assert logits.shape == (3, 7, V)
    assert loss is None
    logits, loss = model(x, ids(seed=2))
    assert logits.shape == (3, 7, V)
    assert loss.shape == ()


@EVERY
def test_a_changed_token_leaves_the_logits_before_it(pos, attn):
    model, x = toy(pos=pos, attn=attn), ids()
    before = model(x)[0]
    for t in range(x.size(1)):
        y = x.clone()
        y[1, t] = (y[1, t] + 1) % V
        after = model(y)[0]
        assert torch.equal(after[1, :t], before[1, :t])
        assert not torch.isclose(after[1, t], before[1, t]).all()
        assert torch.equal(after[[0, 2]], before[[0, 2]])  # nor do the other rows see it


@EVERY
def test_a_row_alone_is_a_row_in_company(pos, attn):
    model, x = toy(pos=pos, attn=attn), ids()
    torch.testing.assert_close(model(x)[0][1:2], model(x[1:2])[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("pos", ["learned", "rope"])
def test_places_are_told(pos):
    """One layer without places sees a set: 1, 2, 3 and 2, 1, 3 would be the same to it."""
    logits = toy(pos=pos, n_layer=1)(torch.tensor([[1, 2, 3], [2, 1, 3]]))[0]
    assert not torch.isclose(logits[0, 2], logits[1, 2]).all()


def test_the_blocks_are_the_equations():
    """x + attn(norm(x)), then x + mlp(norm(x)), with a gelu MLP."""
    torch.manual_seed(0)
    block, x = Block(GPTConfig(n_head=2, d_model=8, d_ff=20, bias=True)), torch.randn(2, 5, 8)

    def norm(x):
        x = x - x.mean(-1, keepdim=True)
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    middle = x + block.attn(norm(x))
    hidden = norm(middle) @ block.mlp.up.weight.T + block.mlp.up.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    want = middle + hidden @ block.mlp.down.weight.T + block.mlp.down.bias
    torch.testing.assert_close(block(x), want)
    assert hidden.shape == (2, 5, 20)


def test_the_loss_is_the_mean_over_targets_that_count():
    model, x, y = toy(), ids(), ids(seed=2)
    y[0, 2:] = -1
    y[2, 0] = -1
    logits, loss = model(x, y)
    nats = [-logits[b, t].log_softmax(-1)[y[b, t]] for b, t in (y >= 0).nonzero().tolist()]
    assert len(nats) == 15
    torch.testing.assert_close(loss, torch.stack(nats).mean())
    assert loss.item() != pytest.approx(F.cross_entropy(logits.mT, y.clamp(min=0)).item())


def test_a_fresh_model_knows_nothing():
    """Its loss is ln V within 2 %, and no more certain where the target is the input."""
    for pos in ("learned", "rope"):
        torch.manual_seed(3)
        model = TinyGPT(GPTConfig(1000, 64, 4, 4, 64, pos=pos))
        x = torch.randint(1000, (4, 65))
        loss = model(x[:, :-1], x[:, 1:])[1].item()
        assert loss == pytest.approx(math.log(1000), rel=0.02)


@pytest.mark.parametrize("T", [13, 40])
def test_more_than_block_size_is_refused(T):
    with pytest.raises(ValueError, match=f"{T} tokens exceed block_size=12"):
        toy()(ids(T=T))
    assert toy()(ids(T=12))[0].shape == (3, 12, V)


def test_one_token_is_enough():
    assert toy()(ids(T=1), ids(T=1))[1].isfinite()


def test_tied_weights_are_one_tensor():
    tied, untied = toy(tie_weights=True), toy(tie_weights=False)
    assert tied.head.weight is tied.tok_emb.weight
    assert untied.head.weight is not untied.tok_emb.weight
    assert untied.n_params() - tied.n_params() == V * 24
    untied.head.weight = tied.head.weight
    assert not torch.equal(untied.tok_emb.weight, tied.tok_emb.weight)


def test_the_start_of_every_matrix():
    """N(0, 0.02), and for what writes to the stream it over sqrt(2 n_layer); gains 1, biases 0."""
    torch.manual_seed(0)
    model = TinyGPT(GPTConfig(256, 96, 5, 4, 96, tie_weights=False))
    small = 0.02 / math.sqrt(10)
    want = {"tok_emb": 0.02, "pos_emb": 0.02, "head": 0.02, "qkv": 0.02, "up": 0.02}
    want |= {"proj": small, "down": small}
    seen = set()
    for name, p in model.named_parameters():
        kind, what = name.split(".")[-2:]
        if "norm" in kind or what == "bias":
            assert (p == (1 if what == "weight" else 0)).all(), name
        else:
            assert p.std().item() == pytest.approx(want[kind], rel=0.04), name
            assert abs(p.mean().item()) < 5 * want[kind] / math.sqrt(p.numel()), name
            seen.add(kind)
    assert seen == set(want)


def test_gpt2_small_has_its_published_size():
    with torch.device("meta"):
        assert TinyGPT(GPTConfig()).n_params() == 124_439_808


@EVERY
def test_every_parameter_learns(pos, attn):
    for kwargs in ({}, {"tie_weights": False, "bias": False, "dropout": 0.1}):
        model = toy(pos=pos, attn=attn, **kwargs)
        model(ids(T=12), ids(T=12, seed=2))[1].backward()
        for name, p in model.named_parameters():
            assert p.grad.isfinite().all(), name
            assert p.grad.abs().max() > 1e-6, name


def test_dropout_in_training_only():
    model, x = toy(dropout=0.3), ids()
    assert not torch.equal(model(x)[0], model(x)[0])
    model.eval()
    assert torch.equal(model(x)[0], model(x)[0])
    assert torch.equal(model(x)[0], toy(dropout=0.0)(x)[0])


def test_the_same_seed_is_the_same_model():
    a, b, c = (toy(seed)(ids())[0] for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


BLOCK = ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.up", "mlp.down"]


def test_names_in_the_state_dict_are_plain_and_stable():
    """Checkpoints depend on them."""
    body = [f"blocks.{i}.{part}.{w}" for i in (0, 1) for part in BLOCK for w in ("weight", "bias")]
    want = ["tok_emb.weight", "pos_emb.weight", *body, "norm.weight", "norm.bias", "head.weight"]
    assert list(toy().state_dict()) == want
    bare = [name for name in want if not name.endswith("bias")]
    assert list(toy(bias=False).state_dict()) == bare
    assert list(toy(bias=False, pos="rope").state_dict()) == [n for n in bare if n[:3] != "pos"]


@pytest.mark.parametrize("tie", [True, False])
def test_a_state_dict_carries_the_model(tie):
    a, b = toy(1, tie_weights=tie, pos="rope"), toy(2, tie_weights=tie, pos="rope")
    b.load_state_dict(a.state_dict())
    assert torch.equal(a(ids())[0], b(ids())[0])
    assert (b.head.weight is b.tok_emb.weight) == tie


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"d_model": 25}, "d_model=25 is not a multiple of n_head=3; try d_model=24"),
        ({"d_model": 1}, "try d_model=3"),
        ({"pos": "rope", "d_model": 27}, "d_model/n_head=9 is odd; make it even"),
        ({"pos": "rope", "d_model": 18, "n_head": 6}, "d_model/n_head=3 is odd"),
        ({"pos": "rope", "rope_theta": 0.0}, "rope_theta=0.0 must be positive"),
        ({"pos": "alibi"}, "pos='alibi' is not one of learned, "),
        ({"attn": "flash"}, "attn='flash' is not one of auto, sdpa, naive"),
        ({"d_ff": -1}, "d_ff=-1 must be positive, or 0"),
        ({"dropout": 1.0}, r"dropout=1.0 must be in \[0, 1\)"),
        ({"dropout": -0.1}, "dropout=-0.1 must be in"),
        ({"vocab_size": 0}, "vocab_size=0 must be at least 1"),
        ({"block_size": 0}, "block_size=0 must be at least 1"),
        ({"n_layer": -2}, "n_layer=-2 must be at least 1"),
        ({"n_head": 0}, "n_head=0 must be at least 1"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_cure(kwargs, message):
    shape = {"vocab_size": V, "n_head": 3, "d_model": 24}
    with pytest.raises(ValueError, match=message):
        GPTConfig(**{**shape, **kwargs})
