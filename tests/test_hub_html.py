"""python -m utils.hub export --to html: what a page computes is what PyTorch computes."""

from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
import torch
from html_pages import BASE, CONFIGS, make_run, model, needs_node, scripts_of, tokenizer, worker

import train
from model import GPTConfig, generate
from model.generation.sampling import probabilities
from utils.hub.__main__ import main
from utils.hub.packed import own_state, packed
from utils.training.models import assembled, load_model
from utils.writing.text import write_text

ROOT = Path(__file__).parent.parent
IDS = torch.randint(280, (2, 24), generator=torch.Generator().manual_seed(3))


def page_of(built, *flags):
    """Export a model; the file."""
    make_run("runs/a", built, tokenizer())
    main(["export", "a", "--to", "html", "a.html", *flags])
    return "a.html"


def rounded(built, dtype="f16"):
    """The model with the weights that a page holds."""
    state = packed(own_state(built), dtype)[2]
    return assembled("gpt", built.config, state).eval()


def test_the_configs_cover_every_setting_and_choice():
    """A setting that the page has never heard of fails here first. Experts are refused."""
    configs = [GPTConfig(**{**BASE, **change}) for change in CONFIGS.values()]
    for field in (f for f in fields(GPTConfig) if f.name not in ("experts", "experts_top")):
        used = {getattr(config, field.name) for config in configs}
        assert used >= set(get_args(field.type)), field.name
        assert used - {field.default}, field.name


@needs_node
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_attention_and_lens_are_those_of_pytorch(name):
    built = model(**CONFIGS[name])
    body = """
    const whole = given.map((ids) => {
      model.forget(0);
      model.read(ids);
      return ids.map((_, t) => model.logits(t));
    });
    const heads = ask("attention", { from: 0 });
    const lens = model.stream.map((_, depth) => model.logits(5, depth));
    model.forget(4);
    for (const id of given[1].slice(4)) model.read([id]);
    return [whole, heads, lens, given[1].map((_, t) => model.logits(t))];
    """
    whole, heads, lens, steps = map(torch.tensor, worker(page_of(built), body, IDS.tolist()))
    twin = rounded(built)
    seen, streams = watched(twin)
    with torch.no_grad():
        want, exact = twin(IDS)[0], built(IDS)[0]
        depths = torch.stack([twin.head(twin.norm(x)) for x in streams])
    size = want.abs().max()
    assert (whole - exact).abs().max() < 2e-3 * size  # a float16 is good to 5e-4
    assert (whole - want).abs().max() < 1e-5 * size
    assert (steps - want[1]).abs().max() < 1e-5 * size
    assert (lens - depths[:, 1, 5]).abs().max() < 1e-5 * depths.abs().max()
    torch.testing.assert_close(heads, torch.stack(seen)[:, 1].flatten(-2), atol=1e-5, rtol=0)


def watched(twin):
    """Lists that a forward pass fills: attention (B,H,T,T) of each layer, and residual streams."""
    seen, streams = [], []

    def watch(q, k, v, attend, **kwargs):
        eye = torch.eye(k.size(2)).expand(k.size(0), k.size(1), -1, -1)  # what v = 1 would gather
        seen.append(attend(q, k, eye, **kwargs))
        return attend(q, k, v, **kwargs)

    twin.blocks[0].register_forward_pre_hook(lambda _, args: streams.append(args[0]))
    for block in twin.blocks:
        block.attn.attend = partial(watch, attend=block.attn.attend)
        block.register_forward_hook(lambda *args: streams.append(args[-1]))
    return seen, streams


@needs_node
@pytest.mark.parametrize("name", ["gpt2", "llama", "slides"])
def test_a_head_switched_off_is_a_head_zeroed(name):
    built = model(**CONFIGS[name])
    body = """
    const off = ["0,1", "1,3"];
    await ask("read", { ids: given, off: [] });
    const { surprises } = await ask("read", { ids: given, off });
    return [given.map((_, t) => model.logits(t)), surprises];
    """
    logits, surprises = map(torch.tensor, worker(page_of(built), body, IDS[0].tolist()))
    twin, D = rounded(built), built.config.d_model // built.config.n_head
    with torch.no_grad():
        before = twin(IDS[:1])[0][0]
        for layer, head in ((0, 1), (1, 3)):
            twin.blocks[layer].attn.proj.weight[:, head * D : (head + 1) * D] = 0
        want = twin(IDS[:1])[0][0]
    assert (want - before).abs().max() > 0.01
    assert (logits - want).abs().max() < 1e-5 * want.abs().max()
    bits = (
        -want[:-1, : tokenizer().vocab_size].log_softmax(-1).gather(1, IDS[0, 1:, None])[:, 0]
        / torch.tensor(2.0).log()
    )
    torch.testing.assert_close(surprises, bits, atol=1e-4, rtol=0)


@needs_node
@pytest.mark.parametrize("name", ["gpt2", "speedrun", "slides", "spare rows"])
@pytest.mark.parametrize("length", [1, 40])
def test_it_writes_what_sample_writes_by_the_same_seed(name, length):
    """Past block_size, and from a prompt that is longer."""
    built = model(**CONFIGS[name])
    prompt = torch.randint(300, (length,), generator=torch.Generator().manual_seed(5)).tolist()
    sampling = {"temperature": 0.8, "top_k": 40, "top_p": 0.9}
    body = """
    const ids = [...given.prompt];
    for (let i = 0; i < 60; i++) {
      await ask("read", { ids, off: [], goesOn: i > 0 });
      ids.push(ask("step", { seed: 7, k: i, ...given }));
    }
    return ids.slice(given.prompt.length);
    """
    written = worker(page_of(built), body, {"prompt": prompt, "sampling": sampling})
    known = tokenizer().vocab_size
    drawn = generate(rounded(built), [prompt], 60, seed=7, vocab_size=known, **sampling)
    assert written == [int(i) for i in drawn]


@needs_node
def test_probabilities_and_random_numbers_are_those_of_pytorch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 50, generator=generator) * 3
    logits[1] = logits[1].round()  # ties
    settings = [
        {"temperature": t, "top_k": k, "top_p": p}
        for t in (0, 0.3, 1, 2.5)
        for k in (None, 1, 7, 100)
        for p in (None, 0.1, 0.9, 1)
    ]
    seeds = [0, 1, 1337, 2**32 - 1]
    body = """
    const uniforms = given.seeds.map((seed) => {
      const numbers = new Uniforms(seed);
      return Array.from({ length: 700 }, () => numbers.next());
    });
    const given_or = (s) => ({ ...s, top_k: s.top_k || 0, top_p: s.top_p ?? 1 });
    const p = given.settings.map((s) => given.logits.map((z) => probabilities(z, given_or(s))));
    return { uniforms, p };
    """
    found = worker(
        page_of(model()), body, {"logits": logits.tolist(), "settings": settings, "seeds": seeds}
    )
    for seed, numbers in zip(seeds, found["uniforms"], strict=True):
        generator = torch.Generator().manual_seed(seed)
        assert numbers == torch.rand(700, generator=generator).tolist()
    for setting, p in zip(settings, found["p"], strict=True):
        want = probabilities(logits, **setting)
        p = torch.tensor(p).float()
        assert ((p > 0) == (want > 0)).all(), setting
        torch.testing.assert_close(p, want, atol=1e-6, rtol=1e-5)


@needs_node
@pytest.mark.parametrize(("dtype", "near"), [("int8", 0.1), ("int4", 0.6)])
def test_integers_are_read_as_torch_reads_them(dtype, near):
    built = model(**CONFIGS["llama"] | {"d_model": 32, "d_ff": 64, "n_head": 4})
    body = "model.read(given); return given.map((_, t) => model.logits(t));"
    page = page_of(built, "--type", dtype)
    logits = torch.tensor(worker(page, body, IDS[0].tolist()))
    with torch.no_grad():
        want, exact = rounded(built, dtype)(IDS[:1])[0][0], built(IDS[:1])[0][0]
    assert (logits - want).abs().max() < 1e-5 * want.abs().max()
    assert 1e-4 < (want - exact).abs().max() < near * exact.abs().max()


def test_what_4_bits_do_not_suit_has_8():
    kinds = {
        name: kind for name, _, kind, _ in packed(own_state(model(**CONFIGS["llama"])), "int4")[0]
    }
    assert kinds["tok_emb.weight"] == kinds["blocks.0.mlp.down.weight"] == "int8"


@needs_node
def test_adapters_are_merged(text_file):
    make_run("runs/base", model(**CONFIGS["llama"]), tokenizer())
    flags = [
        "--data",
        str(text_file),
        "--init",
        "base",
        "--run",
        "my",
        "--steps",
        "3",
        "--lora",
        "3",
    ]
    flags += ["--lr", "0.05", "--warmup", "0", "--device", "cpu", "--dtype", "float32"]
    assert train.main([*flags, "--sample", "0", "--batch_size", "2"]) == 0
    main(["export", "my", "--to", "html", "a.html"])
    body = "model.read(given); return given.map((_, t) => model.logits(t));"
    logits = torch.tensor(worker("a.html", body, IDS[0].tolist()))
    (adapted, *_), (base, *_) = load_model(Path("runs/my")), load_model(Path("runs/base"))
    with torch.no_grad():
        want, other = adapted.eval()(IDS[:1])[0][0], base.eval()(IDS[:1])[0][0]
    assert (logits - want).abs().max() < 2e-3 * want.abs().max()
    assert (other - want).abs().max() > 1e-2 * want.abs().max()


@needs_node
def test_a_trained_run_writes_as_sample_does(toy_run):
    main(["export", "my", "--to", "html", "a.html"])
    built, tok, _ = load_model(toy_run)
    body = """
    const ids = header.end === null ? [...given] : [header.end, ...given];
    for (let k = 0; k < 30; k++) {
      await ask("read", { ids, off: [], goesOn: k > 0 });
      ids.push(ask("step", { sampling: { temperature: 1 }, seed: 3, k }));
    }
    return [header.start, header.end, ids.slice(-30)];
    """
    start, end, ids = worker("a.html", body, tok.encode("the cat"))
    assert (start, end) == (tok.encode("\n"), None)
    assert tok.decode(ids) == write_text(rounded(built), tok, "the cat", 30, end=None, seed=3)


def test_what_a_page_cannot_be_is_refused(error_of):
    make_run("runs/a", model(), tokenizer())
    export = partial(error_of, main, "export", "a", "--to", "html")
    assert "--type Q8_0 is for gguf; html takes F16, INT8" in export("a.html", "--type", "Q8_0")
    assert "exists; choose another" in export("runs")
    with torch.no_grad():
        big = model()
        big.tok_emb.weight[3, 3] = 1e5
    make_run("runs/b", big, tokenizer())
    error = error_of(main, "export", "b", "--to", "html", "a.html")
    assert "F16 ends at 65504; tok_emb.weight has 100000: take --type int8" in error
    assert not Path("a.html").exists()


def test_a_model_that_is_too_large_is_refused(error_of, monkeypatch):
    monkeypatch.setattr("utils.hub.html.LARGEST", (n := model().n_params()) - 1)
    make_run("runs/a", model(), tokenizer())
    error = error_of(main, "export", "a", "--to", "html", "a.html")
    assert f"{n:,} parameters, a page at most {n - 1:,}; train a smaller one" in error


def test_the_demo_is_made_of_the_files_that_make_a_page():
    """Else: make train; python -m utils.hub export tiny --to html docs/demo.html --type int8."""
    demo, page = ROOT / "docs" / "demo.html", page_of(model())
    assert demo.stat().st_size < 3e6
    old, new = scripts_of(demo), scripts_of(page)
    assert (old.plain, old.named["worker"]) == (new.plain, new.named["worker"])
    assert old.policy == new.policy  # hashes of the scripts and the style


@needs_node
def test_the_demo_computes_what_pytorch_computed():
    body = "return answers.open({ header, weights: given });"
    page = ROOT / "docs" / "demo.html"
    assert worker(page, body, scripts_of(page).named["weights"]) < 1e-4
