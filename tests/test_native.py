"""The library in C++: its products and steps beside torch's, for each kind of CPU that it knows."""

import ctypes
import shutil
import subprocess
import sys

import pytest
import torch
from hub_models import model as small_model
from torch import nn

import utils.native
from model import generate
from model.adapt.layout import laid_out, native
from model.adapt.quant import QuantLinear, quantize
from model.adapt.rounding import Codes, codes_of, int4_codes, values
from model.generation.cache import KVCache
from model.generation.engine import Engine
from model.generation.requests import Request
from model.generation.step import TokenStep
from model.native import native_of
from utils.native import FLAGS, built, compiler, with_native

KINDS = {"native": FLAGS}  # name -> flags
if compiler().endswith("g++") and sys.platform == "linux":
    plain = tuple(flag for flag in FLAGS if flag != "-march=native")
    KINDS["scalar"] = tuple(flag for flag in plain if flag != "-fopenmp")


pytestmark = pytest.mark.skipif(not compiler(), reason="needs a C++ compiler")


@pytest.fixture(scope="module", params=KINDS)
def library(request, tmp_path_factory):
    path = built(compiler(), tmp_path_factory.mktemp("built"), KINDS[request.param])
    return ctypes.CDLL(str(path))


def rounded(x):
    """Each group of 32 in steps of a 127th of its largest."""
    groups = x.unflatten(-1, (-1, 32))
    step = groups.abs().amax(-1, keepdim=True) / 127
    return ((groups / step.where(step > 0, 1)).round() * step).flatten(-2)


@pytest.mark.parametrize(("bits", "group"), [(8, 32), (4, 32), (4, 64), (4, 128)])
@pytest.mark.parametrize("shape", [(48, 128), (40, 256), (5, 128)])
def test_a_product_is_that_of_rounded_inputs(library, bits, group, shape):
    torch.manual_seed(0)
    bias = nn.Parameter(torch.randn(shape[0]))
    layer = native(QuantLinear(codes_of(torch.randn(shape), bits, group), bias), library)
    for B in (1, 2, 3, 4, 8, 15):
        x = torch.randn(B, shape[1])
        x[0, :32] = 0
        x[-1, 32:64] *= 1e3
        found = layer(x)
        exact = rounded(x).double() @ values(layer.codes).double().T + bias.double()
        off = (found - exact).abs().amax(1) / exact.abs().amax(1)
        assert off.max() < 1e-5
        for i in range(B):  # to the bit, whoever is beside it
            assert torch.equal(layer(x[i : i + 1])[0], found[i])


def test_the_largest_integers_do_not_overflow(library):
    for w in (torch.full((16, 64), 1.0), torch.full((16, 64), -1.0)):
        layer = native(QuantLinear(codes_of(w, 8, 32)), library)
        assert layer(w[:1])[0].tolist() == pytest.approx([float(w[0] @ w[0])] * 16)
        codes = int4_codes(torch.cat((w, -w)).repeat(1, 2).where(torch.arange(128) % 32 > 0, 0), 32)
        layer = native(QuantLinear(codes), library)
        x = torch.ones(1, 128)
        torch.testing.assert_close(layer(x), x @ values(codes).T)


def test_the_layout_by_hand():
    """4 bits: byte 4r + c has input c of output r below, input 4 + c above."""
    q = torch.arange(32).repeat(2, 1) % 16
    q[1] = 15 - q[1]
    halves = torch.tensor([[1.0], [2.0]]).half()
    packed = (q[:, ::2] | q[:, 1::2] << 4).to(torch.uint8)
    found = laid_out(Codes(packed, halves, -halves))
    assert found.shape == (320,)
    assert found[:8].tolist() == [0x40, 0x51, 0x62, 0x73, 0xBF, 0xAE, 0x9D, 0x8C]
    assert found[8:64].tolist() == [0] * 56  # outputs that are not there
    assert found[256:].view(torch.float16)[:2].tolist() == [1.0, 2.0]
    assert found[288:].view(torch.float16)[:3].tolist() == [-1.0, -2.0, 0.0]
    eight = laid_out(
        Codes(torch.tensor([[-127, 0, 3, 4] + [0] * 28], dtype=torch.int8), halves[:1])
    )
    assert eight[:4].tolist() == [1, 128, 131, 132]
    assert eight[512:].view(torch.float32)[:2].tolist() == [1.0, 0.0]


MODELS = {
    "llama": {},
    "wide": {"n_kv_head": 4, "d_ff": 128, "tie_weights": True},
    "window": {"window": 5},
    "gpt2": {"d_ff": 128},
    "relu2": {"kind": "gpt2", "mlp": "relu2", "pos": "rope"},
    "geglu": {"mlp": "geglu", "norm": "layernorm"},
}


def both_steps(name, library, bits=4):
    kwargs = dict(MODELS[name])
    model = small_model(kwargs.pop("kind", "gpt2" if name == "gpt2" else "llama"), **kwargs)
    native(quantize(model, bits), library)
    ours, theirs = TokenStep(model), TokenStep(model)
    assert ours.native is not None
    theirs.native = None  # torch's operations between our products
    return model, ours, theirs


@pytest.mark.parametrize("name", MODELS)
def test_a_step_is_that_of_the_blocks(library, name):
    """Rows of different lengths, step by step; both round what a product reads."""
    model, ours, theirs = both_steps(name, library)
    caches = [KVCache(model.config, 3, 40) for _ in range(2)]
    part = KVCache(model.config, 3, 40)
    ids = torch.randint(300, (3, 12), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        model.hidden_states(ids[:, :6], part)
        for cache in caches:
            cache.paste([0, 1, 2], part, [6, 1, 3])
        pairs = list(zip((ours, theirs), caches, strict=True))
        for t in range(6, 12):
            found, known = (f(ids[:, t : t + 1], c) for f, c in pairs)
            assert (found - known).norm() < 5e-3 * known.norm()  # a rounding may fall otherwise
            for a, b in zip(caches[0].kv, caches[1].kv, strict=True):
                b.copy_(a)  # so that it does not add up
    assert caches[0].lengths == [12, 7, 9]


def test_a_row_is_as_alone_and_threads_do_not_count(library):
    model, ours, _ = both_steps("llama", library)
    ids = torch.randint(300, (9, 5), generator=torch.Generator().manual_seed(2))

    def read(rows, threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        cache = KVCache(model.config, len(rows))
        with torch.inference_mode():
            found = [ours.step(rows[:, t : t + 1], cache) for t in range(5)]
        torch.set_num_threads(before)
        return torch.cat(found, 1)

    together = read(ids, 2)
    assert torch.equal(read(ids, 1), together)
    for i in range(9):
        assert torch.equal(read(ids[i : i + 1], 1)[0], together[i])


def test_texts_of_an_engine_are_as_alone(library):
    """By 8 bits, so that each block's rounding has its turn, too."""
    model, _, _ = both_steps("wide", library, bits=8)
    prompts = [[1, 2, 3], [4], [5, 6, 7, 8, 9]]
    engine = Engine(model, rows=3)
    numbers = [engine.submit(Request(ids, steps=12, temperature=0)) for ids in prompts]
    texts = {n: [] for n in numbers}
    for event in engine.run():
        if event.token is not None:
            texts[event.number].append(event.token.id)
    for n, ids in zip(numbers, prompts, strict=True):
        alone = [int(i) for i in generate(model, [ids], 12, temperature=0)]
        assert texts[n] == alone


def test_a_text_goes_on_past_the_cache(library):
    """What outgrows block_size is read anew; a window slides."""
    for name in ("llama", "window"):
        model, _, _ = both_steps(name, library)
        ids = [int(i) for i in generate(model, [[1, 2, 3]], 60, seed=1)]
        assert len(ids) == 60


def test_where_it_does_not_fit_torch_goes_on(library):
    """Norms of q and k, a norm after the sum, heads that are no whole vector, autocast."""
    other = (
        {"qk_norm": True},
        {"norm_at": "post"},
        {"n_head": 8, "n_kv_head": 8},
        {"head_dim": 32},
    )
    for change in other:
        model = native(quantize(small_model("llama", **change), 4), library)
        assert native_of(model.blocks[0].attn.qkv)
        assert TokenStep(model).native is None
    model, ours, _ = both_steps("llama", library)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert not ours.native.takes(torch.zeros(1, 64), KVCache(model.config, 1))
    layer = QuantLinear(codes_of(torch.randn(16, 48), 8, 32))  # no whole group
    assert native_of(native(layer, library)) is None
    assert native_of(native(layer, None)) is None


def test_new_weights_are_not_multiplied_by_the_old(library):
    one, other = (quantize(small_model("llama", seed=i), 4) for i in (0, 1))
    native(one, library).load_state_dict(other.state_dict())
    assert torch.equal(
        one.blocks[0].mlp.up(torch.ones(1, 64)), other.blocks[0].mlp.up(torch.ones(1, 64))
    )


def test_it_is_built_once(tmp_path):
    path = built(compiler(), tmp_path)
    before = path.stat().st_mtime_ns
    assert built(compiler(), tmp_path) == path
    assert path.stat().st_mtime_ns == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    utils.native.loaded.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(utils.native, "worth", lambda: True)
    yield tmp_path
    utils.native.loaded.cache_clear()


def said_of(capsys):
    model = with_native(quantize(small_model("llama"), 4))
    assert native_of(model.blocks[0].attn.qkv) is None
    with_native(model)
    model(torch.tensor([[1, 2]]))
    return capsys.readouterr().err


def test_without_a_compiler_one_line_says_so(fresh, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert said_of(capsys).count("no C++ compiler") == 1
    utils.native.loaded.cache_clear()
    monkeypatch.setenv("LLM_TINY_NATIVE", "0")
    assert said_of(capsys) == ""


def test_what_cannot_be_built_or_written_is_said_in_a_line(fresh, monkeypatch, capsys):
    monkeypatch.setenv("CXX", shutil.which("false"))
    assert said_of(capsys).startswith("note: no library in C++, so torch's slower kernels (")
    assert not list((fresh / "llm-tiny").iterdir())
    utils.native.loaded.cache_clear()
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("XDG_CACHE_HOME", str(fresh / "file"))
    (fresh / "file").write_text("in the way")
    assert len(said_of(capsys).splitlines()) == 1


def test_a_cpu_that_gains_nothing_keeps_torch(fresh, monkeypatch, capsys):
    monkeypatch.setattr(utils.native, "worth", lambda: False)
    assert said_of(capsys) == ""
    assert not list(fresh.iterdir())


def test_a_compiler_that_hangs_is_given_up(fresh, monkeypatch, capsys):
    def hang(*a, **k):
        raise subprocess.TimeoutExpired("c++", 120)

    monkeypatch.setattr(subprocess, "run", hang)
    assert "timed out" in said_of(capsys)


def test_floats_are_left_alone(monkeypatch):
    monkeypatch.setattr(utils.native, "loaded", lambda: pytest.fail("built for nothing"))
    with_native(small_model("llama"))
