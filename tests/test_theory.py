"""docs/theory.md: its derivations against autograd, its figures, its exercises and tests."""

import importlib.util
import math
import re
from pathlib import Path

import pytest
import torch

from model import GPTConfig, TinyGPT
from model.generation.sampling import probabilities
from model.norm import Norm

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^## (\d+)\. (.*?)\n(.*?)(?=^## )", PAGE, re.M | re.S)


def test_every_section_names_its_exercise_and_its_test():
    """And each test that it names is there."""
    assert [int(number) for number, _, _ in SECTIONS] == list(range(1, 23))
    for number, _, text in SECTIONS:
        (line,) = re.findall(r"^\*Exercise:\* (.*?)\n\*Test:\* (.*?)\.\n", text, re.M | re.S)
        assert line[0], number
        pieces = re.findall(r"((?:`test_\w+`(?:, )?)+) in `(tests/\w+\.py)`", line[1])
        assert pieces, number
        for names, path in pieces:
            source = (ROOT / path).read_text(encoding="utf-8")
            for name in re.findall(r"`(\w+)`", names):
                assert f"def {name}(" in source, (number, name)


@pytest.mark.skipif(
    not importlib.util.find_spec("utils.exercises"), reason="needs utils/exercises beside it"
)
def test_the_exercises_are_those_of_the_table():
    """A slug stands in the section that the exercise itself names, and each exercise in one."""
    from utils.exercises.table import load

    given = {row.slug: row.theory for row in load()}
    named = {}
    for _, title, text in SECTIONS:
        titles = {title, *re.findall(r"^### (.*)", text, re.M)}
        line = re.search(r"^\*Exercise:\* (.*)", text, re.M)[1]
        if not line.startswith("none"):
            named |= dict.fromkeys(re.findall(r"`([\w-]+)`", line), titles)
    assert named.keys() == given.keys()
    for slug, titles in named.items():
        assert given[slug] in titles, slug


def test_softmaxs_backward():
    """p_j (g_j - sum g_i p_i), and the example by hand."""
    torch.manual_seed(0)
    z = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    g = torch.randn(2, 5, dtype=torch.float64)
    p = z.softmax(-1)
    p.backward(g)
    p = p.detach()
    torch.testing.assert_close(z.grad, p * (g - (g * p).sum(-1, keepdim=True)))
    p, g = torch.tensor([2.0, 1, 0]).softmax(-1), torch.tensor([1.0, 0, 0])
    assert (p * (g - (g * p).sum())).tolist() == pytest.approx([0.223, -0.163, -0.060], abs=5e-4)
    assert "(0.223, -0.163, -0.060)" in PAGE


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
def test_layer_norms_backward(kind):
    """1/s (h - mean(h) - x mean(h x)), without the first mean for RMSNorm; gain and bias."""
    torch.manual_seed(0)
    norm = Norm(6, kind, 1e-5, bias=True).double()
    with torch.no_grad():
        norm.weight.normal_()
    x = (3 + 2 * torch.randn(2, 4, 6, dtype=torch.float64)).requires_grad_()
    dy = torch.randn(2, 4, 6, dtype=torch.float64)
    norm(x).backward(dy)
    with torch.no_grad():
        centred = x - x.mean(-1, keepdim=True) if kind == "layernorm" else x
        s = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        hat, h = centred / s, dy * norm.weight
        first = h.mean(-1, keepdim=True) if kind == "layernorm" else 0
        expected = (h - first - hat * (h * hat).mean(-1, keepdim=True)) / s
    torch.testing.assert_close(x.grad, expected)
    torch.testing.assert_close(norm.weight.grad, (dy * hat).sum((0, 1)))
    if kind == "layernorm":
        torch.testing.assert_close(norm.bias.grad, dy.sum((0, 1)))


def test_layer_norms_backward_by_hand():
    x = torch.tensor([1.0, 2, 3], requires_grad=True)
    Norm(3, "layernorm", 1e-12, bias=False)(x).backward(torch.tensor([1.0, 0, 0]))
    assert x.grad.tolist() == pytest.approx([0.204, -0.408, 0.204], abs=5e-4)
    assert "(0.204, -0.408, 0.204)" in PAGE


def test_scaling_laws():
    """Chinchilla's formula at two sizes, its best size, and the tokens a weight of tiny.yaml."""
    E, A, B, a, b = 1.69, 406.4, 410.7, 0.34, 0.28

    def loss(N, D):
        return E + A / N**a + B / D**b

    assert loss(280e9, 300e9) == pytest.approx(1.993, abs=5e-4)
    assert loss(70e9, 1.4e12) == pytest.approx(1.937, abs=5e-4)
    for C in (1e20, 1e23):  # the best size on a fine grid is where the two terms' slopes agree
        sizes = [10 ** (i / 500) for i in range(3500, 6500)]
        best = min(sizes, key=lambda N, C=C: loss(N, C / (6 * N)))
        assert a * A / best**a == pytest.approx(b * B / (C / (6 * best)) ** b, rel=0.01)
    assert (round(b / (a + b), 2), round(a / (a + b), 2)) == (0.45, 0.55)
    assert round(10**-0.076, 2) == 0.84
    assert round(300 * 12 * 192 / 744_768, 2) == 0.93


def test_sixteen_bits():
    """What bfloat16 can hold, and which parts of a model it holds under autocast."""
    half = torch.tensor(0.5, dtype=torch.bfloat16)
    assert half + 0.001 == half
    assert float(half + 2**-8) == 0.5 + 2**-8
    assert torch.tensor(0.5) + 0.001 != torch.tensor(0.5)
    model = TinyGPT(GPTConfig(vocab_size=50, block_size=8, n_layer=1, n_head=2, d_model=16))
    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda m, a, y, name=name: seen.update({name: y}))
    idx = torch.zeros(2, 8, dtype=torch.long)
    with torch.autocast("cpu", torch.bfloat16):
        _, loss = model(idx, idx)
    for name in ("blocks.0.attn.qkv", "blocks.0.mlp.up", "head"):
        assert seen[name].dtype == torch.bfloat16
    for name in ("tok_emb", "blocks.0", "blocks.0.norm1", "norm"):
        assert seen[name].dtype == torch.float32
    assert loss.dtype == torch.float32


def test_the_order_of_cuts():
    """At temperature 0.5 a nucleus of 0.75 leaves one token; cut first, it would leave two."""
    logits = torch.tensor([[4.0, 2, 1]]).log()
    after = probabilities(logits, temperature=0.5, top_p=0.75)
    before = probabilities(logits, top_p=0.75)
    assert ((after > 0).sum(), (before > 0).sum()) == (1, 2)
    for tau, entropy, choices in ((1.0, 0.956, 2.60), (0.5, 0.668, 1.95)):
        p = probabilities(logits, temperature=tau)
        H = float(-(p * p.log()).sum())
        assert (round(H, 3), round(math.exp(H), 2)) == (entropy, choices)
        assert f"{entropy:.3f}" in PAGE
