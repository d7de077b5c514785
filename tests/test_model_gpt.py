"""TinyGPT: shapes, losses, start, counts, and what each logit may know."""

import math

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from model import MLP, Block, GPTConfig, Norm, TinyGPT, generate, rope_table
from model.positions import sinusoid

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


POS = ("learned", "sinusoidal", "rope", "none")
EVERY = pytest.mark.parametrize(
    ("pos", "norm_at", "attn"),
    [(p, n, a) for p in POS for n in ("pre", "post") for a in ("sdpa", "naive")],
)
LLAMA = {"pos": "rope", "norm": "rmsnorm", "mlp": "swiglu", "bias": False, "tie_weights": False}
LLAMA |= {"n_head": 6, "n_kv_head": 2}
NEEDS_FUSED = pytest.mark.skipif(
    not hasattr(F, "linear_cross_entropy"), reason="this torch has no fused loss"
)


@EVERY
def test_logits_of_every_position_and_loss_with_targets(pos, norm_at, attn):
    model, x = toy(pos=pos, norm_at=norm_at, attn=attn), ids()
    logits, loss = model(x)
    assert logits.shape == (3, 7, V)
    assert loss is None
    logits, loss = model(x, ids(seed=2))
    assert logits.shape == (3, 7, V)
    assert loss.shape == ()


@EVERY
def test_a_changed_token_leaves_the_logits_before_it(pos, norm_at, attn):
    model, x = toy(pos=pos, norm_at=norm_at, attn=attn), ids()
    before = model(x)[0]
    for t in range(x.size(1)):
        y = x.clone()
        y[1, t] = (y[1, t] + 1) % V
        after = model(y)[0]
        assert torch.equal(after[1, :t], before[1, :t])
        assert not torch.isclose(after[1, t], before[1, t]).all()
        assert torch.equal(after[[0, 2]], before[[0, 2]])  # nor do the other rows see it


@EVERY
def test_a_row_alone_is_a_row_in_company(pos, norm_at, attn):
    model, x = toy(pos=pos, norm_at=norm_at, attn=attn), ids()
    torch.testing.assert_close(model(x)[0][1:2], model(x[1:2])[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("pos", POS)
def test_positions_are_told(pos):
    """One layer without positions sees a set: 1, 2, 3 and 2, 1, 3 are the same to it."""
    logits = toy(pos=pos, n_layer=1)(torch.tensor([[1, 2, 3], [2, 1, 3]]))[0]
    assert torch.isclose(logits[0, 2], logits[1, 2], atol=1e-6).all() == (pos == "none")


def test_sinusoids_are_added_to_scaled_embeddings():
    """Sections 3.4 and 3.5 of the paper: sqrt(C) times the embedding, plus the table."""
    model, x = toy(pos="sinusoidal"), ids()
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda block, args: seen.append(args[0]))
    model(x)
    want = 24**0.5 * model.tok_emb.weight[x] + sinusoid(12, 24)[:7]
    torch.testing.assert_close(seen[0], want)


def test_embeddings_are_convolved():
    """x_t = sum_k conv_k e_(t-k): beside torch's own convolution, in groups of one dimension."""
    fresh = TinyGPT(GPTConfig(V, 12, 2, 3, 24, emb_conv=3)).conv
    assert (fresh[0] == 1).all()
    assert fresh[1:].std().item() == pytest.approx(0.5, rel=0.3)
    model, x = toy(emb_conv=3), ids()
    e = torch.nn.functional.pad(model.tok_emb(x).mT, (2, 0))
    want = torch.nn.functional.conv1d(e, model.conv.flip(0).mT[:, None], groups=24).mT
    torch.testing.assert_close(model.token_embeddings(x), want)
    before = torch.tensor([[-1, -1], [-1, 4], [3, 5]])  # at the start, after one, after many
    got = model.token_embeddings(x, before)
    torch.testing.assert_close(got[0], want[0])
    long = torch.cat((before[2], x[2]))[None]
    torch.testing.assert_close(got[2], model.token_embeddings(long)[0, 2:])
    short = torch.cat((before[1, 1:], x[1]))[None]
    torch.testing.assert_close(got[1], model.token_embeddings(short)[0, 1:])
    for bad in (-1, 13):
        with pytest.raises(ValueError, match=f"emb_conv={bad} must be 0 to block_size=12"):
            toy(emb_conv=bad)


def by_hand(x, norm, eps):
    """A norm in the words of its paper, with gain 1."""
    if norm == "layernorm":
        x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("norm_at", ["pre", "post"])
def test_the_blocks_are_the_equations(norm, norm_at):
    torch.manual_seed(0)
    config = GPTConfig(n_head=2, d_model=8, norm=norm, norm_at=norm_at, norm_eps=0.03)
    block, x, gain = Block(config), torch.randn(2, 5, 8), 1 + torch.arange(8) / 8
    for n in (block.norm1, block.norm2):
        n.weight.data.copy_(gain)
    norm_ = lambda x: gain * by_hand(x, norm, 0.03)  # noqa: E731
    if norm_at == "pre":
        middle = x + block.attn(norm_(x))
        want = middle + block.mlp(norm_(middle))
    else:
        middle = norm_(x + block.attn(x))
        want = norm_(middle + block.mlp(middle))
    torch.testing.assert_close(block(x), want)


@pytest.mark.parametrize("attn", ["sdpa", "naive"])
@pytest.mark.parametrize("pos", ["learned", "rope"])
def test_an_encoder_is_built_from_the_same_block(attn, pos):
    """Two layers that are not causal: padding changes nothing, position 0 sees position T-1."""
    torch.manual_seed(0)
    config = GPTConfig(n_head=2, d_model=16, n_kv_head=1, pos=pos, attn=attn)
    blocks = [Block(config, causal=False) for _ in range(2)]
    rope = rope_table(7, 8) if pos == "rope" else None

    def encode(x, lengths):
        mask = torch.arange(x.size(1)) < torch.tensor(lengths)[:, None]
        tables = rope and tuple(t[: x.size(1)] for t in rope)
        for block in blocks:
            x = block(x, tables, attn_mask=mask[:, None, None])
        return x

    x = torch.randn(2, 7, 16)
    y = encode(x, [7, 4])
    torch.testing.assert_close(y[1:, :4], encode(x[1:, :4], [4]), rtol=0, atol=1e-6)
    padding, last = x.clone(), x.clone()
    padding[1, 4:] = 9.0
    torch.testing.assert_close(encode(padding, [7, 4])[1, :4], y[1, :4], rtol=0, atol=1e-6)
    last[0, 6] *= -1
    assert not torch.isclose(encode(last, [7, 4])[0, 0], y[0, 0], atol=1e-4).any()
    decoder = Block(config)
    decoder.load_state_dict(blocks[0].state_dict())
    assert torch.equal(decoder(last, rope)[0, :6], decoder(x, rope)[0, :6])  # by default it doesn't


@pytest.mark.parametrize("norm_at", ["pre", "post"])
def test_the_stream_ends_normalised_once(norm_at):
    model = toy(norm_at=norm_at, norm="rmsnorm", norm_eps=0.01)
    for name, p in model.named_parameters():
        if "norm" in name:
            p.data.fill_(1)
    size = model.hidden_states(ids()).square().mean(-1).sqrt()
    assert ((size > 0.5) & (size <= 1)).all()
    assert isinstance(model.norm, Norm) == (norm_at == "pre")


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


@pytest.mark.parametrize(
    ("mlp", "act"),
    [
        ("gelu", gelu),
        (
            "gelu_tanh",
            lambda x: 0.5 * x * (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3))),
        ),
        ("relu", lambda x: x * (x > 0)),
        ("relu2", lambda x: x**2 * (x > 0)),
        ("swiglu", lambda x: x / (1 + torch.exp(-x))),
        ("geglu", gelu),
    ],
)
def test_the_mlps_are_the_equations(mlp, act):
    torch.manual_seed(0)
    m, x = MLP(GPTConfig(n_head=2, d_model=8, d_ff=20, mlp=mlp)), torch.randn(2, 5, 8)
    for p in m.parameters():
        p.data.normal_()
    hidden = x @ m.up.weight.T + m.up.bias
    if mlp.endswith("glu") and mlp != "gelu":
        hidden = act(x @ m.gate.weight.T + m.gate.bias) * hidden
    else:
        assert m.gate is None
        hidden = act(hidden)
    assert hidden.shape == (2, 5, 20)
    want = hidden @ m.down.weight.T + m.down.bias
    torch.testing.assert_close(m(x), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kwargs", "width"),
    [
        ({}, 96),
        ({"d_ff": 50}, 50),
        ({"mlp": "swiglu"}, 64),
        ({"mlp": "geglu", "d_ff": 50}, 50),
        ({"mlp": "swiglu", "d_model": 768}, 2048),  # 8/3 C, and a multiple of 64
        ({"mlp": "geglu", "d_model": 129}, 320),  # of 344
        ({"mlp": "swiglu", "d_model": 3}, 64),  # never 0
        ({"mlp": "relu2", "d_model": 768}, 3072),
    ],
)
def test_the_width_of_the_mlp(kwargs, width):
    config = GPTConfig(**{"n_head": 3, "d_model": 24, **kwargs})
    assert config.hidden == width
    assert MLP(config).up.weight.shape == (width, config.d_model)


def test_the_loss_is_the_mean_over_targets_that_count():
    model, x, y = toy(), ids(), ids(seed=2)
    y[0, 2:] = -1
    y[2, 0] = -1
    logits, loss = model(x, y)
    nats = [-logits[b, t].log_softmax(-1)[y[b, t]] for b, t in (y >= 0).nonzero().tolist()]
    assert len(nats) == 15
    torch.testing.assert_close(loss, torch.stack(nats).mean())
    assert loss.item() != pytest.approx(F.cross_entropy(logits.mT, y.clamp(min=0)).item())


@NEEDS_FUSED
@pytest.mark.parametrize("tie", [True, False])
def test_the_loss_without_its_logits_is_the_same(monkeypatch, tie):
    """300 positions, more than the fused way takes at a time; each gradient, by either way."""
    x, y = ids(30, 10), ids(30, 10, seed=2)
    y[0, 2:] = -1
    fused, kinds = F.linear_cross_entropy, []
    spy = lambda *args, **kwargs: kinds.append("fused") or fused(*args, **kwargs)  # noqa: E731
    monkeypatch.setattr(F, "linear_cross_entropy", spy)
    for large, want in ((V, ["fused"]), (V + 1, [])):
        monkeypatch.setattr("model.gpt.LARGE", large)
        a, b = toy(tie_weights=tie), toy(tie_weights=tie)
        kinds.clear()
        logits, loss = b(x, y, loss_only=True)
        assert logits is None
        assert kinds == want
        same = a(x, y)[1]
        assert loss.item() == pytest.approx(same.item(), rel=1e-6)
        same.backward()
        (3 * loss).backward()
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            torch.testing.assert_close(3 * p.grad, q.grad, rtol=1e-4, atol=1e-5)


class Wrapped(nn.Module):
    """A head in the manner of LoRA: what it was, and a product of two thin matrices."""

    def __init__(self, head):
        super().__init__()
        self.head, self.weight = head, head.weight
        self.a = nn.Parameter(torch.randn(2, head.in_features))
        self.b = nn.Parameter(torch.randn(head.out_features, 2))

    def forward(self, x):
        return self.head(x) + x @ self.a.T @ self.b.T


@pytest.mark.parametrize("large", [V, V + 1])
def test_a_replaced_head_is_obeyed(monkeypatch, large):
    """`loss_only` read head.weight: with LoRA in the head it trained and scored what stood there

    before, and generated with what replaced it. A hook on a plain head was passed by, too.
    """
    monkeypatch.setattr("model.gpt.LARGE", large)
    x, y = ids(), ids(seed=2)
    wrapped, hooked, biased = toy(), toy(), toy()
    wrapped.head = Wrapped(wrapped.head)
    hooked.head.register_forward_hook(lambda head, args, logits: logits.sin())
    biased.head = nn.Linear(24, V)
    for model in (wrapped, hooked, biased):
        logits, loss = model(x, y)
        assert not torch.allclose(logits, toy()(x)[0])
        torch.testing.assert_close(model(x, y, loss_only=True)[1], loss)
        first = next(generate(model, x, 1, temperature=0))
        assert torch.equal(first, logits[:, -1].argmax(-1))
    wrapped(x, y, loss_only=True)[1].backward()
    assert wrapped.head.a.grad.abs().max() > 0


@pytest.mark.parametrize("large", [V, V + 1])
@pytest.mark.parametrize("loss_only", [True, False])
def test_the_sum_over_the_count_is_the_mean_to_the_bit(monkeypatch, large, loss_only):
    """Loss and gradients, fused and plain, of full batches; a batch without targets sums to 0.

    torch's own sum of the fused loss differs in the last bit unless the count is a power of 2.
    """
    monkeypatch.setattr("model.gpt.LARGE", large)
    for B, T in ((3, 8), (30, 10), (64, 12), (12, 12)):
        x, y = ids(B, T), ids(B, T, seed=2)
        mean, total = toy(), toy()
        loss = mean(x, y, loss_only=loss_only)[1]
        nats = total(x, y, loss_only=loss_only, reduction="sum")[1]
        assert torch.equal((nats / (B * T)).float(), loss)
        loss.backward()
        (nats / (B * T)).backward()
        for p, q in zip(mean.parameters(), total.parameters(), strict=True):
            assert torch.equal(p.grad, q.grad)
    nothing = torch.full_like(y, -1)
    total.zero_grad()
    nats = total(x, nothing, loss_only=loss_only, reduction="sum")[1]
    nats.backward()
    assert nats.item() == 0
    assert all((p.grad == 0).all() for p in total.parameters())
    with FakeTensorMode():  # utils.memory counts the bytes of such a step: nothing may wait for n
        toy()(ids(4, 5), ids(4, 5), loss_only=loss_only, reduction="sum")[1].backward()
    y[0, 3:] = -1
    nats, loss = (total(x, y, loss_only=loss_only, reduction=r)[1] for r in ("sum", "mean"))
    torch.testing.assert_close((nats / (y >= 0).sum()).float(), loss)


@pytest.mark.filterwarnings("ignore")
@NEEDS_FUSED
def test_the_fused_loss_stands_back_from_autocast_and_compile(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("called")

    monkeypatch.setattr("model.gpt.LARGE", V)
    monkeypatch.setattr(F, "linear_cross_entropy", refuse)
    model, x, y = toy(), ids(), ids(seed=2)
    with pytest.raises(AssertionError, match="called"):
        model(x, y, loss_only=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(x, y, loss_only=True)[1], model(x, y)[1])
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x, y, loss_only=True)[1], model(x, y)[1])
    monkeypatch.setattr("model.gpt.FUSED", False)  # an older torch
    assert torch.equal(model(x, y, loss_only=True)[1], model(x, y)[1])


@pytest.mark.parametrize("norm_at", ["pre", "post"])
@pytest.mark.parametrize("pos", POS)
@pytest.mark.parametrize("mlp", ["gelu", "swiglu"])
def test_a_fresh_model_knows_nothing(pos, norm_at, mlp):
    """Its loss is ln V within 2 %."""
    torch.manual_seed(3)
    model = TinyGPT(GPTConfig(1000, 64, 4, 4, 64, pos=pos, norm_at=norm_at, mlp=mlp))
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


@pytest.mark.parametrize("kwargs", [{}, {"mlp": "swiglu", "norm": "rmsnorm", "pos": "rope"}])
def test_the_start_of_every_matrix(kwargs):
    """N(0, 0.02), and for what writes to the stream it over sqrt(2 n_layer); gains 1, biases 0."""
    torch.manual_seed(0)
    config = GPTConfig(256, 96, 5, 4, 96, n_kv_head=2, tie_weights=False, qk_norm=True, **kwargs)
    small = 0.02 / math.sqrt(10)
    want = {"tok_emb": 0.02, "pos_emb": 0.02, "head": 0.02, "qkv": 0.02, "up": 0.02, "gate": 0.02}
    want |= {"proj": small, "down": small}
    seen = set()
    for name, p in TinyGPT(config).named_parameters():
        kind, what = name.split(".")[-2:]
        if "norm" in kind or what == "bias":
            assert (p == (1 if what == "weight" else 0)).all(), name
        else:
            assert p.std().item() == pytest.approx(want[kind], rel=0.04), name
            assert abs(p.mean().item()) < 5 * want[kind] / math.sqrt(p.numel()), name
            seen.add(kind)
    assert set(want) - seen == ({"gate"} if not kwargs else {"pos_emb"})


def test_gpt2_small_has_its_published_size():
    with torch.device("meta"):
        assert TinyGPT(GPTConfig()).n_params() == 124_439_808


@EVERY
def test_every_parameter_learns(pos, norm_at, attn):
    for kwargs in ({}, {"tie_weights": False, "bias": False, "dropout": 0.1}):
        model = toy(pos=pos, norm_at=norm_at, attn=attn, **kwargs)
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


def test_names_in_the_state_dict_are_plain_and_stable():
    """Checkpoints depend on them."""
    parts = ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.up", "mlp.down"]
    body = [f"blocks.{i}.{part}.{w}" for i in (0, 1) for part in parts for w in ("weight", "bias")]
    want = ["tok_emb.weight", "pos_emb.weight", *body, "norm.weight", "norm.bias", "head.weight"]
    assert list(toy().state_dict()) == want
    bare = [name for name in want if not name.endswith("bias")]
    assert list(toy(bias=False).state_dict()) == bare
    for pos in ("sinusoidal", "rope", "none"):  # their tables are computed, not learnt
        assert list(toy(bias=False, pos=pos).state_dict()) == [n for n in bare if n[:3] != "pos"]


def test_names_of_the_other_parts():
    model = toy(**LLAMA, qk_norm=True, n_layer=1)
    parts = ["norm1", "attn.qkv", "attn.proj", "attn.q_norm", "attn.k_norm", "norm2"]
    parts = [f"blocks.0.{part}" for part in [*parts, "mlp.gate", "mlp.up", "mlp.down"]]
    want = [f"{name}.weight" for name in ("tok_emb", *parts, "norm", "head")]
    assert list(model.state_dict()) == want
    biased = [n for n in toy(**{**LLAMA, "bias": True}).state_dict() if n.endswith("bias")]
    assert {n.split(".")[-2] for n in biased} == {"qkv", "proj", "gate", "up", "down"}
    post = set(toy().state_dict()) - set(toy(norm_at="post").state_dict())
    assert post == {"norm.weight", "norm.bias"}


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
        ({"norm_eps": 0.0}, "norm_eps=0.0 must be positive; 1e-5 is usual"),
        ({"norm": "batchnorm"}, "norm='batchnorm' is not one of layernorm, rmsnorm"),
        ({"norm_at": "both"}, "norm_at='both' is not one of pre, post"),
        ({"mlp": "silu"}, "mlp='silu' is not one of gelu, gelu_tanh, relu, relu2, swiglu, geglu"),
        ({"pos": "sinusoidal", "d_model": 27}, "d_model=27 is odd; try d_model=30"),
        ({"n_kv_head": 2}, "n_kv_head=2 does not divide n_head=3; try n_kv_head=1"),
        ({"n_head": 6, "n_kv_head": 4}, "n_head=6; try n_kv_head=3"),
        ({"n_head": 6, "n_kv_head": 12}, "n_head=6; try n_kv_head=6"),
        ({"n_kv_head": -1}, "n_kv_head=-1 does not divide n_head=3; try n_kv_head=1"),
        ({"n_head": 24, "qk_norm": True}, "qk_norm needs d_model/n_head of 2 or more"),
        ({"window": -1}, "window=-1 must be from 2 to 11, or 0"),
        ({"window": 1}, "window=1 must be"),
        ({"window": 12}, "window=12 must be"),
        ({"dropout": 1.0}, r"dropout=1.0 must be in \[0, 1\)"),
        ({"dropout": -0.1}, "dropout=-0.1 must be in"),
        ({"vocab_size": 0}, "vocab_size=0 must be at least 1"),
        ({"block_size": 0}, "block_size=0 must be at least 1"),
        ({"n_layer": -2}, "n_layer=-2 must be at least 1"),
        ({"n_head": 0}, "n_head=0 must be at least 1"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_cure(kwargs, message):
    shape = {"vocab_size": V, "block_size": 12, "n_head": 3, "d_model": 24}
    with pytest.raises(ValueError, match=message):
        GPTConfig(**{**shape, **kwargs})


def test_the_edges_of_what_can_be_built():
    for kwargs in ({"window": 2}, {"window": 11}, {"n_kv_head": 1}, {"n_kv_head": 3}):
        assert toy(**kwargs)(ids())[0].isfinite().all()


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        LLAMA,
        {"mlp": "geglu", "d_ff": 40, "window": 5, "qk_norm": True},
        {"norm_at": "post", "pos": "sinusoidal", "n_head": 6, "n_kv_head": 1, "d_model": 48},
    ],
)
def test_flops_agree_with_torchs_count(kwargs):
    """Of a step's matrix products; torch has no count for the fused kernel of the CPU."""
    model, x, y = toy(attn="naive", **kwargs), ids(2, 12), ids(2, 12, 2)
    with FlopCounterMode(display=False) as counter:
        model(x, y)[1].backward()
    assert model.flops_per_token() == pytest.approx(counter.get_total_flops() / 24, rel=0.02)


def test_flops_of_gpt2_small_by_hand():
    """6 per weight that multiplies, and 12 L C T: 0.85 G at 1,024 tokens."""
    weights = 12 * 12 * 768**2 + 50257 * 768
    with torch.device("meta"):
        flops = TinyGPT(GPTConfig()).flops_per_token()
    assert flops == 6 * weights + 12 * 12 * 768 * 1024


def test_start_of_embedding_and_of_what_writes_to_the_stream():
    """emb_std is the embedding's alone, or with a tied head; zero_init makes blocks identities."""
    for tied in (True, False):
        torch.manual_seed(0)
        start = {"emb_std": 0.5, "zero_init": True, "tie_weights": tied}
        model = TinyGPT(GPTConfig(500, 8, n_layer=2, n_head=2, d_model=64, **start))
        assert model.tok_emb.weight.std().item() == pytest.approx(0.5, rel=0.05)
        assert model.head.weight.std().item() == pytest.approx(0.5 if tied else 0.02, rel=0.05)
        assert model.blocks[0].mlp.up.weight.std().item() == pytest.approx(0.02, rel=0.1)
        x = torch.randn(2, 5, 64)
        assert torch.equal(model.blocks[0](x), x)
