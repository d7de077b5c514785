"""Every allowed combination of flags trains; compiled and recomputed, the model is the same."""

import gc
import shutil
import weakref
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model import GPTConfig, TinyGPT

V, T = 13, 10
COMPILER = any(map(shutil.which, ("c++", "g++", "clang++", "cl")))


@st.composite
def configs(draw):
    """Any configuration that GPTConfig allows, at toy size."""
    n_kv_head = draw(st.sampled_from([1, 2, 3]))
    n_head = n_kv_head * draw(st.sampled_from([1, 2]))
    names = ("pos", "norm", "norm_at", "mlp", "attn")
    types = {f: GPTConfig.__dataclass_fields__[f].type.__args__ for f in names}
    return GPTConfig(
        vocab_size=V,
        block_size=T,
        n_layer=draw(st.sampled_from([1, 2])),
        n_head=n_head,
        d_model=n_head * draw(st.sampled_from([4, 6])),
        n_kv_head=draw(st.sampled_from([0, n_kv_head])),
        d_ff=draw(st.sampled_from([0, 17])),
        dropout=draw(st.sampled_from([0.0, 0.1])),
        norm_eps=draw(st.sampled_from([1e-6, 1e-3])),
        rope_theta=draw(st.sampled_from([100.0, 1e4])),
        window=draw(st.sampled_from([0, 2, 5])),
        emb_conv=draw(st.sampled_from([0, 1, 4])),
        **{f: draw(st.booleans()) for f in ("bias", "qk_norm", "tie_weights")},
        **{f: draw(st.sampled_from(choices)) for f, choices in types.items()},
    )


def ids(B=4, seed=0):
    return torch.randint(V, (B, T + 1), generator=torch.Generator().manual_seed(seed))


def loss_of(model, text):
    return model(text[:, :-1], text[:, 1:])[1]


@pytest.mark.slow
@given(configs())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_allowed_combination_trains(config):
    torch.manual_seed(0)
    model, text = TinyGPT(config), ids()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first = loss_of(model.eval(), text).item()
    model.train()
    for step in range(20):
        loss = loss_of(model, text)
        loss.backward()
        assert loss.isfinite()
        for name, p in model.named_parameters():
            assert p.grad is not None, name
            assert p.grad.isfinite().all(), name
            assert step < 2 or p.grad.abs().max() > 0, name
        optimizer.step()
        optimizer.zero_grad()
    assert loss_of(model.eval(), text).item() < 0.95 * first


@given(configs())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_combination_keeps_its_promises(config):
    """No look ahead, rows apart, and both implementations of attention the same."""
    torch.manual_seed(0)
    model, text = TinyGPT(config).eval(), ids()[:, :-1]
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)
        logits = model(text)[0]
        other = text.clone()
        other[1, 6:] = (other[1, 6:] + 1) % V
        changed = model(other)[0]
        implementation = "naive" if config.attn != "naive" else "sdpa"
        twin = TinyGPT(replace(config, attn=implementation)).eval()
        twin.load_state_dict(model.state_dict())
        torch.testing.assert_close(twin(text)[0], logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(changed[1, :6], logits[1, :6], rtol=0, atol=1e-6)
    assert torch.equal(changed[[0, 2, 3]], logits[[0, 2, 3]])
    assert not torch.equal(changed[1, 6:], logits[1, 6:])


LLAMA = {"pos": "rope", "norm": "rmsnorm", "mlp": "swiglu", "bias": False, "tie_weights": False}
FAMILY = {
    "gpt2": {},
    "llama": {**LLAMA, "n_kv_head": 2},
    "first transformer": {"pos": "sinusoidal", "norm_at": "post", "mlp": "relu"},
    "odd one": {"pos": "none", "mlp": "geglu", "qk_norm": True, "window": 3, "attn": "naive"},
    "windowed": {**LLAMA, "mlp": "relu2", "n_kv_head": 1, "window": 4, "emb_conv": 3},
}


def toy(kind, **kwargs):
    torch.manual_seed(0)
    shape = {"vocab_size": V, "block_size": T, "n_layer": 2, "n_head": 4, "d_model": 32}
    return TinyGPT(GPTConfig(**{**shape, **FAMILY[kind], **kwargs}))


def same_after_a_step(model, other, text, atol):
    """Two calls with the same parameters: the same logits, loss and gradients."""
    results = []
    for m in (model, other):
        torch.manual_seed(1)
        logits, loss = m(text[:, :-1], text[:, 1:])
        grads = torch.autograd.grad(loss, list(model.parameters()))
        results.append((logits, loss, *grads))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FAMILY)
def test_the_graph_has_no_break(kind):
    """Fullgraph raises at the first one; here without making machine code, so that it is quick."""
    torch.compiler.reset()
    model = toy(kind)
    same_after_a_step(model, torch.compile(model, fullgraph=True, backend="aot_eager"), ids(), 1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not COMPILER, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", FAMILY)
def test_compiled_equals_eager(kind, recompute):
    torch.compiler.reset()
    model = toy(kind)
    model.activation_checkpointing = recompute
    compiled = torch.compile(model, fullgraph=True)
    same_after_a_step(model, compiled, ids(), 1e-5)
    same_after_a_step(model, compiled, ids(seed=1), 1e-5)
    assert list(model.state_dict()) == list(toy(kind).state_dict())


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("kind", FAMILY)
def test_gradients_with_activation_checkpointing_are_the_same(kind, dropout):
    """To the bit, also with dropout: the second pass drops what the first dropped."""
    model, text = toy(kind, dropout=dropout), ids()
    found = []
    for recompute in (False, True):
        model.activation_checkpointing = recompute
        torch.manual_seed(1)
        loss = loss_of(model, text)
        found.append((loss, *torch.autograd.grad(loss, list(model.parameters()))))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


class PeakBytes(TorchDispatchMode):
    """Most bytes that tensors made under it have held at one time."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor) and (s := t.untyped_storage()) not in self.known:
                self.known.add(s)
                self.now += s.nbytes()
                weakref.finalize(s, self.free, s.nbytes())
                self.peak = max(self.peak, self.now)
        return out

    def free(self, n):
        self.now -= n


def peak_of(recompute, n_layer):
    torch.manual_seed(0)
    model = TinyGPT(GPTConfig(V, 64, n_layer, 4, 64, attn="naive"))
    model.activation_checkpointing = recompute
    text = torch.randint(V, (8, 65))
    gc.collect()
    with PeakBytes() as memory:
        loss_of(model, text).backward()
    return memory.peak


def test_recomputing_takes_less_memory():
    """Of 8 blocks each keeps its input alone, until its turn comes."""
    assert peak_of(True, 8) < 0.3 * peak_of(False, 8)


def test_recomputing_is_for_training_only():
    model = toy("gpt2")
    model.activation_checkpointing = True
    model.eval()
    with torch.no_grad():
        assert model(ids()[:, :-1])[0].isfinite().all()
    calls = []
    model.blocks[0].register_forward_pre_hook(lambda *a: calls.append(1))
    loss_of(model, ids()).backward()
    assert len(calls) == 1
    model.train()
    loss_of(model, ids()).backward()
    assert len(calls) == 3  # once before, twice now


@pytest.mark.parametrize("kind", FAMILY)
def test_bfloat16_autocast_stays_close(kind):
    model, text = toy(kind), ids()
    exact = loss_of(model, text)
    with torch.autocast("cpu", torch.bfloat16):
        near = loss_of(model, text)
    near.backward()
    assert near.item() == pytest.approx(exact.item(), rel=0.01)
    assert all(p.grad.isfinite().all() for p in model.parameters())
