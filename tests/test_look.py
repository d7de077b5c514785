"""utils/look: what is inside equals what the model computes, and the picture holds any text."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model import GPTConfig, TinyGPT
from model.adapt.lora import add_lora
from model.adapt.lora_config import LoRAConfig
from model.inside import attention_weights, walk
from tok import BPETokenizer, CharTokenizer
from utils import runs
from utils.look import __main__ as command
from utils.look.inside import KEPT, label, logit_lens, look
from utils.look.picture import MOST, cut, depths_shown, draw, mosaic, percent

BASE = GPTConfig(vocab_size=29, block_size=16, n_layer=3, n_head=4, d_model=32, dropout=0.2)
SHAPES = {
    "gpt2": {"mlp": "gelu_tanh", "attn_dropout": 0.3},
    "llama": {"pos": "rope", "norm": "rmsnorm", "mlp": "swiglu", "bias": False, "n_kv_head": 2},
    "speedrun": {"pos": "rope", "qk_norm": True, "emb_conv": 3, "tie_weights": False},
    "vaswani": {"pos": "sinusoidal", "norm_at": "post", "mlp": "relu", "tie_weights": False},
    "window": {"pos": "none", "window": 3, "mlp": "relu2", "n_kv_head": 1},
    "scaled": {"pos": "rope", "rope_scaling": "linear factor=4", "window": 5, "qk_norm": True},
    "naive": {"attn": "naive", "mlp": "geglu", "norm_at": "post", "n_kv_head": 2},
}


def noisy(**shape):
    """A model whose weights are all drawn anew, large enough that heads differ."""
    torch.manual_seed(0)
    model = TinyGPT(replace(BASE, **shape)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


def adapted():
    model = noisy(pos="rope", norm="rmsnorm", bias=False)
    add_lora(
        model, LoRAConfig(lora=2, lora_targets="all"), generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora" in name or p.requires_grad:
                p.add_(0.3 * torch.randn_like(p))
    return model


MODELS = {name: lambda shape=shape: noisy(**shape) for name, shape in SHAPES.items()}
MODELS["adapters"] = adapted


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


@torch.no_grad()
def test_the_last_depth_of_the_lens_is_the_model(model):
    idx = torch.randint(29, (11,))
    read = []
    for block in model.blocks:
        block.attn.register_forward_pre_hook(lambda attn, args: read.append((attn, *args[:2])))
    stream, attention = walk(model, idx)
    assert stream.shape == (4, 11, 32)
    assert attention.shape == (3, 4, 11, 11)
    logits = model(idx[None])[0][0]
    assert torch.allclose(logit_lens(model, stream[-1]), logits, atol=1e-5)
    assert not torch.allclose(logit_lens(model, stream[-2]), logits, atol=1e-2)
    weights = torch.cat([attention_weights(*seen) for seen in read[:3]])
    assert torch.equal(attention, weights)


@torch.no_grad()
def test_weights_times_values_are_the_attention(model):
    """A second implementation: v cut out by hand, each group of heads with its own."""
    attn, x = model.blocks[1].attn, torch.randn(2, 9, 32)
    rope = model.rope(9, slice(9)) if model.config.pos == "rope" else None
    p = attention_weights(attn, x, rope)  # (B,H,T,T)
    K, D = model.config.kv_heads, 8
    v = attn.qkv(x)[..., -K * D :].view(2, 9, K, D).transpose(1, 2)
    y = torch.stack([p[:, h] @ v[:, h * K // 4] for h in range(4)], 2)  # (B,T,H,D)
    assert torch.allclose(attn.proj(y.flatten(2)), attn(x, rope), atol=1e-5)
    assert torch.allclose(p.sum(-1), torch.ones(2, 4, 9), atol=1e-5)
    allowed = torch.ones(9, 9).tril()
    if model.config.window:
        allowed = allowed.triu(1 - model.config.window)
    assert (p * (1 - allowed)).abs().max() == 0


def test_weights_by_hand():
    """One head of two dimensions, q = k = x: softmax(x_t . x_s / sqrt(2))."""
    model = TinyGPT(GPTConfig(vocab_size=5, n_layer=1, n_head=1, d_model=2, bias=False))
    attn = model.blocks[0].attn
    attn.qkv.weight.data = torch.cat([torch.eye(2)] * 3)
    x = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
    e = np.exp(1 / np.sqrt(2))
    expected = torch.tensor([[1.0, 0.0], [1 / (1 + e), e / (1 + e)]])
    assert torch.allclose(attention_weights(attn, x)[0, 0], expected.float(), atol=1e-6)


def test_a_look_is_what_the_model_says():
    """Losses, ids and probabilities against the model's logits; <|endoftext|> is read first."""
    tokenizer = CharTokenizer.train(["abcdefgh ,.\n"], special_tokens=["<|endoftext|>"])
    end = tokenizer.special_tokens["<|endoftext|>"]
    model = noisy(pos="rope").train()
    seen = look(model, tokenizer, "bad cab", end=end)
    assert seen.labels == ["<|endoftext|>", *"bad·cab"]
    idx = torch.from_numpy(seen.ids)
    with torch.no_grad():
        logits = model(idx[None])[0][0]
    assert np.allclose(
        seen.loss, F.cross_entropy(logits[:-1], idx[1:], reduction="none"), atol=1e-5
    )
    top = logits.softmax(-1).topk(KEPT)
    assert (seen.likely[-1] == top.indices.numpy()).all()
    assert np.allclose(seen.p[-1], top.values, atol=1e-5)
    assert seen.likely.shape == (4, 8, KEPT)
    assert set(seen.likely.flatten()) <= set(seen.names)


def test_a_text_may_be_longer_than_the_context_only_where_the_model_slides():
    tokenizer = CharTokenizer.train(["ab"])
    assert len(look(noisy(pos="rope", window=4), tokenizer, "ab" * 12).ids) == 24
    with pytest.raises(ValueError, match="24 tokens exceed block_size=16; shorten"):
        look(noisy(), tokenizer, "ab" * 12)
    with pytest.raises(ValueError, match="12 tokens, and a picture has room for 11; shorten"):
        look(noisy(), tokenizer, "ab" * 6, most=11)


def test_labels_show_blanks_and_bytes():
    tokenizer = BPETokenizer.train(["the the the the"], 260)
    [the] = tokenizer.encode(" the")
    assert label(tokenizer, the) == "·the"
    assert [label(tokenizer, i) for i in tokenizer.encode("é\n\t")] == ["‹c3›", "‹a9›", "↵", "⇥"]
    assert label(tokenizer, 999) == "‹999›"
    assert cut("abcdef", 4) == "abc…"
    assert cut("你a", 4) == "□a"
    assert [percent(p) for p in (1.0, 0.031, 0.004)] == ["100%", "3%", "<1%"]


def test_the_mosaic_by_hand():
    heads = np.array([[[[1, 0], [0.5, 0.5]], [[1, 0], [0.2, 0.8]]]])  # one block, two heads
    expected = [[1, -1, np.nan, 1, -1], [0.5, 0.5, np.nan, 0.2, 0.8]]
    assert np.array_equal(mosaic(heads, 1), expected, equal_nan=True)
    assert mosaic(np.zeros((3, 2, 4, 4)), 2).shape == (3 * 6 - 2, 2 * 6 - 2)
    assert depths_shown(31, 4) == [0, 10, 20, 30]
    assert depths_shown(3, 9) == [0, 1, 2]


@pytest.mark.parametrize(
    "text", ["\n", "$^$ \\frac{_ 你é🙂\n", "".join(map(chr, range(0xC0, 0xDE)))]
)
def test_any_text_can_be_drawn(text, tmp_path):
    """Neither mathematics nor a missing letter warns; one token has no loss; the longest fits."""
    tokenizer = BPETokenizer.train([8 * text], 270)
    model = noisy(block_size=MOST, n_layer=11, vocab_size=270)
    seen = look(model, tokenizer, text, most=MOST)
    assert len(seen.ids) in (1, 9, MOST - 1)
    draw(seen, "$^$", str(tmp_path / "look.png"), 5)
    assert (tmp_path / "look.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_draws_beside_the_run(toy_run, capsys):
    command.main(["my", "the cat sat", "--top", "2"])
    assert capsys.readouterr().out.startswith("runs/my/look.png: ")
    first = (toy_run / "look.png").read_bytes()
    command.main(["the cat sat", "--ckpt", "last", "--out", "again.png", "--top", "2"])
    assert first.startswith(b"\x89PNG")
    assert runs.Path("again.png").read_bytes() == first  # best is last here, and my the newest


def test_the_command_refuses(toy_run, error_of):
    for args, words in [
        (["none", "a"], "no run runs/none"),
        (["my", ""], "the text is empty"),
        ([], "text"),
        (["my", "a", "--top", "0"], "top=0 must be from 1 to 5"),
        (["my", "a", "--out", "."], "is a directory"),
        (["my", "a", "--out", "none/a.png"], "none/a.png: No such file"),
        (["my", "the " * 30], "tokens exceed block_size=16; shorten the text"),
        (["my", "a", "--tops", "2"], "did you mean --top?"),
    ]:
        assert words in error_of(command.main, *args)
