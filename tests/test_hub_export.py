"""python -m utils.hub export: other programs read what we write, and so do we."""

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_models import FAMILIES, TEMPLATE, TEXT, make_run

from model import generate
from utils.hub.__main__ import main
from utils.hub.gguf import GGUFFile
from utils.hub.pretrained import read_pretrained
from utils.training.models import load_model

os.environ["HF_HUB_OFFLINE"] = "1"
gguf = pytest.importorskip("gguf", reason="pip install 'llm-tiny[hub]'")
safetensors = pytest.importorskip("safetensors.torch", reason="pip install 'llm-tiny[hub]'")
transformers = pytest.importorskip("transformers", reason="pip install transformers")
SCALINGS = [
    "linear factor=2",
    "yarn factor=4 original_max_position_embeddings=16",
    "llama3 factor=8 original_max_position_embeddings=32 low_freq_factor=1 high_freq_factor=4",
]
MODELS = [
    ("gpt2", {}),
    ("gpt2", {"d_ff": 160}),
    ("llama", {}),
    ("llama", {"tie_weights": True}),
    ("llama", {"bias": True}),
    *(("llama", {"rope_scaling": scaling}) for scaling in SCALINGS),
]


def equal_runs(one, other):
    (a, tok_a, _), (b, tok_b, _) = load_model(Path(one)), load_model(Path(other))
    assert list(a.state_dict()) == list(b.state_dict())
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[name]), name
    assert Path(one, "tokenizer.json").read_bytes() == Path(other, "tokenizer.json").read_bytes()
    assert a.config.tie_weights == b.config.tie_weights
    x = torch.tensor([tok_a.encode(TEXT)[:20], tok_b.encode(TEXT)[7:27]])
    assert torch.equal(a.eval()(x)[0], b.eval()(x)[0])


@pytest.mark.parametrize(("kind", "change"), MODELS)
def test_transformers_loads_the_directory_and_computes_the_same(kind, change):
    ours, tok = make_run("runs/a", kind, **change)
    main(["export", "a", "--to", "hf", "out/hf"])
    theirs = transformers.AutoModelForCausalLM.from_pretrained("out/hf").eval()
    their_tok = transformers.AutoTokenizer.from_pretrained("out/hf")
    text = TEXT + "<|start|>user<|end|>\n  naïve 漢字 \U0001f600"
    ids = tok.encode(text, allowed_special="all")
    assert their_tok(text, add_special_tokens=False)["input_ids"] == ids
    assert their_tok.decode(ids) == text
    assert (their_tok.bos_token, their_tok.eos_token) == ("<|start|>", "<|end|>")
    x = torch.tensor([ids[:40], ids[3:43]])
    with torch.no_grad():
        expected = theirs(x).logits
    torch.testing.assert_close(ours(x)[0], expected, atol=1e-5, rtol=1e-5)
    drawn = [int(i) for i in generate(ours, [ids[:9]], 39, temperature=0)]
    kwargs = {"do_sample": False, "max_new_tokens": 39, "eos_token_id": None, "pad_token_id": 0}
    written = theirs.generate(torch.tensor([ids[:9]]), **kwargs)
    assert written[0, 9:].tolist() == drawn
    message = [{"role": "user", "content": "hello"}]
    shown = their_tok.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert shown == "<|start|>user: hello<|end|><|start|>assistant: "


@pytest.mark.parametrize(("kind", "change"), MODELS)
@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_a_run_comes_back_equal_to_the_bit(kind, change, to):
    make_run("runs/a", kind, **change)
    main(["export", "a", "--to", to, "out/thing"])
    main(["import", "out/thing", "--run", "b"])
    equal_runs("runs/a", "runs/b")
    origin = read_pretrained(Path("runs/b"))
    assert (origin.bos, origin.eos, origin.chat_template) == ("<|start|>", "<|end|>", TEMPLATE)
    assert (origin.architecture, origin.license) == (kind, "mit")


def test_digits_one_by_one_come_back():
    make_run("runs/a", "llama", pattern="gpt2_digits")
    for to in ("hf", "gguf"):
        main(["export", "a", "--to", to, to])
        main(["import", to, "--run", f"b{to}"])
        equal_runs("runs/a", f"runs/b{to}")
    theirs = transformers.AutoTokenizer.from_pretrained("hf")
    text = "in 2026, 3  times 4\n 56½"
    ours = load_model(Path("runs/a"))[1].encode(text)
    assert theirs(text, add_special_tokens=False)["input_ids"] == ours


@pytest.mark.parametrize("dtype", ["F32", "F16", "Q8_0"])
def test_gguf_is_what_its_own_package_reads(dtype):
    ours, _ = make_run("runs/a", "llama")
    main(["export", "a", "--to", "gguf", "a.gguf", "--type", dtype])
    read = gguf.GGUFReader("a.gguf")
    kinds = {t.name: t.tensor_type.name for t in read.tensors}
    assert kinds["blk.1.attn_q.weight"] == dtype
    assert kinds["blk.1.attn_norm.weight"] == "F32"
    mine = GGUFFile(Path("a.gguf"))
    for t in read.tensors:
        theirs = gguf.quants.dequantize(t.data, t.tensor_type)
        assert np.array_equal(mine.array(t.name), theirs.reshape(mine.tensors[t.name].shape))
    assert mine.metadata["llama.attention.head_count_kv"] == 2
    assert mine.metadata["tokenizer.ggml.pre"] == "gpt-2"
    up = mine.array("blk.0.ffn_up.weight")
    bound = {"F32": 0, "F16": 1e-3, "Q8_0": 1e-2}[dtype]
    assert (
        np.abs(up - ours.blocks[0].mlp.up.weight.detach().numpy()).max() <= bound * np.abs(up).max()
    )


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_llama_cpp_writes_the_same(kind):
    llama_cpp = pytest.importorskip("llama_cpp", reason="pip install llama-cpp-python")
    ours, tok = make_run("runs/a", kind)
    main(["export", "a", "--to", "gguf", "a.gguf"])
    theirs = llama_cpp.Llama("a.gguf", n_ctx=48, verbose=False, type_k=0, type_v=0)
    ids = tok.encode("The quick brown fox")
    assert theirs.tokenize(TEXT.encode(), add_bos=False) == tok.encode(TEXT)
    written = theirs.generate(ids, temp=0.0, repeat_penalty=1.0)
    assert [next(written) for _ in range(30)] == [
        int(i) for i in generate(ours, [ids], 30, temperature=0)
    ]


def test_weights_are_read_by_the_package_alone_and_others_may_read_the_file():
    ours, _ = make_run("runs/a", "gpt2")
    main(["export", "a", "--to", "hf", "hf"])
    state = safetensors.load_file("hf/model.safetensors")
    up = state["transformer.h.1.mlp.c_fc.weight"]
    assert torch.equal(up, ours.blocks[1].mlp.up.weight.T)
    assert "lm_head.weight" not in state
    modes = {
        stat.S_IMODE(Path("hf", f).stat().st_mode) for f in ("config.json", "model.safetensors")
    }
    assert len(modes) == 1


def test_the_card_says_what_is_known(toy_run):
    import eval as eval_script

    make_run("runs/a", "llama")
    main(["export", "a", "--to", "hf", "made"])
    card = Path("made/README.md").read_text()
    assert "license: mit" in card
    assert "It started from made here." in card
    eval_script.main(["--run", "my", "--device", "cpu"])
    flags = [
        "--mlp",
        "gelu_tanh",
        "--pos",
        "learned",
        "--bias",
        "true",
        "--norm",
        "layernorm",
        "--steps",
        "3",
        "--run",
        "gpt",
    ]
    from conftest import TOY

    import train

    assert train.main(["--data", "my.txt", *TOY, *flags]) == 0
    eval_script.main(["--run", "gpt", "--device", "cpu"])
    main(["export", "gpt", "--to", "hf", "trained"])
    card = Path("trained/README.md").read_text()
    scores = json.loads(Path("runs/gpt/eval.json").read_text())
    assert f"| model | {scores['model']['val_loss']:.4f} |" in card
    assert "| optimizer | adamw |" in card
    assert "my.txt" in card


REFUSED = [
    ({"mlp": "relu2"}, "hf", "mlp='relu2'"),
    ({"mlp": "relu2"}, "gguf", "mlp='relu2'"),
    ({"mlp": "geglu"}, "gguf", "swiglu only"),
    ({"qk_norm": True}, "hf", "qk_norm=True"),
    ({"emb_conv": 2}, "gguf", "emb_conv=2"),
    ({"window": 8}, "hf", "window=8"),
    ({"norm_at": "post"}, "hf", "norm_at='post'"),
    ({"norm": "layernorm"}, "gguf", "norm='layernorm'"),
    ({"rope_scaling": "ntk factor=2 original_max_position_embeddings=16"}, "gguf", "GGUF"),
]


@pytest.mark.parametrize(("change", "to", "reason"), REFUSED)
def test_what_a_format_lacks_is_refused_by_name(change, to, reason, error_of):
    make_run("runs/a", "llama", **change)
    assert reason in error_of(main, "export", "a", "--to", to, "out")
    assert not Path("out").exists()
    assert not list(Path().glob(".out*"))


def test_other_refusals(error_of):
    make_run("runs/a", "gpt2", mlp="gelu", pos="sinusoidal")
    assert "pos='sinusoidal'" in error_of(main, "export", "a", "--to", "hf", "out")
    make_run("runs/b", "gpt2")
    assert "--type F16 is for gguf" in error_of(
        main, "export", "b", "--to", "hf", "o", "--type", "F16"
    )
    error = error_of(main, "export", "b", "--to", "peft", "o", "--type", "F16")
    assert "--type F16 is for gguf" in error
    Path("full").mkdir()
    Path("full/file").touch()
    assert "full exists" in error_of(main, "export", "b", "--to", "hf", "full")
    assert "best.pt exists" in error_of(main, "export", "b", "--to", "gguf", "runs/b/best.pt")
    assert "full is a directory" in error_of(main, "export", "b", "--to", "gguf", "full")
    make_run("runs/c", "llama", d_model=40, d_ff=48)
    error = error_of(main, "export", "c", "--to", "gguf", "c.gguf", "--type", "Q8_0")
    assert "rows of a multiple of 32" in error
    assert not Path("c.gguf").exists()
    make_run("runs/d", "llama", pattern=r"\S+|\s+")
    assert "can't split words by" in error_of(main, "export", "d", "--to", "gguf", "d.gguf")
    assert "has no adapters" in error_of(main, "export", "d", "--to", "peft", "d")


@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_a_full_disk_leaves_nothing(to, error_of, monkeypatch):
    make_run("runs/a", "llama")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("utils.hub.exporter.write_safetensors", full)
    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full)
    assert "No space left" in error_of(main, "export", "a", "--to", to, "out")
    assert not [p for p in Path().iterdir() if "out" in p.name]


def test_every_family_is_tried():
    assert set(FAMILIES) == {kind for kind, _ in MODELS}
