"""python -m utils.hub export: other programs read what we write, and so do we."""

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_models import FAMILIES, TEMPLATE, TEXT, make_run, model, tokenizer

from model import generate
from tok import BPETokenizer
from utils.hub.__main__ import main
from utils.hub.gguf import GGUFFile
from utils.hub.importer import write_run
from utils.hub.pretrained import Pretrained, read_pretrained
from utils.hub.sources import Found
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
    ("gpt2", {"tie_weights": False}),
    ("llama", {}),
    ("llama", {"tie_weights": True}),
    ("llama", {"bias": True}),
    ("llama", {"n_head": 2, "n_kv_head": 1, "head_dim": 16}),
    *(("llama", {"rope_scaling": scaling}) for scaling in SCALINGS),
]
NTK = "ntk factor=2 original_max_position_embeddings=16"  # GGUF has no word for it


def equal_runs(one, other):
    (a, tok_a, _), (b, tok_b, _) = load_model(Path(one)), load_model(Path(other))
    assert list(a.state_dict()) == list(b.state_dict())
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[name]), name
    assert Path(one, "tokenizer.json").read_bytes() == Path(other, "tokenizer.json").read_bytes()
    assert a.config.tie_weights == b.config.tie_weights
    x = torch.tensor([tok_a.encode(TEXT)[:20], tok_b.encode(TEXT)[7:27]])
    assert torch.equal(a.eval()(x)[0], b.eval()(x)[0])


@pytest.mark.parametrize(("kind", "change"), [*MODELS, ("llama", {"rope_scaling": NTK})])
def test_transformers_loads_the_directory_and_computes_the_same(kind, change):
    ours, tok = make_run("runs/a", kind, **change, block_size=80)
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
    drawn = [int(i) for i in generate(ours, [ids[:9]], 64, temperature=0)]
    kwargs = {"do_sample": False, "max_new_tokens": 64, "eos_token_id": None, "pad_token_id": 0}
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


@pytest.mark.parametrize(("kind", "change"), MODELS)
def test_llama_cpp_writes_the_same(kind, change):
    llama_cpp = pytest.importorskip("llama_cpp", reason="pip install llama-cpp-python")
    ours, tok = make_run("runs/a", kind, **change, block_size=96)
    main(["export", "a", "--to", "gguf", "a.gguf"])
    theirs = llama_cpp.Llama("a.gguf", n_ctx=96, verbose=False, type_k=0, type_v=0)
    ids = tok.encode("The quick brown fox")
    text = TEXT + "<|start|>user<|end|>\n  naïve 漢字 \U0001f600 \n\n it's 12 345"
    their_ids = theirs.tokenize(text.encode(), add_bos=False, special=True)
    assert their_ids == tok.encode(text, allowed_special="all")
    written = theirs.generate(ids, temp=0.0, repeat_penalty=1.0)
    assert [next(written) for _ in range(64)] == [
        int(i) for i in generate(ours, [ids], 64, temperature=0)
    ]


def special_first():
    """The shared tokenizer, its special tokens being the ids 0, 1 and 2."""
    tok = tokenizer()
    names = list(tok.special_tokens)
    ids = {tok.special_tokens[name]: i for i, name in enumerate(names)}
    others = [i for i in sorted(tok.vocab) if i not in ids]
    ids |= {i: n + len(names) for n, i in enumerate(others)}
    vocab = {ids[i]: token for i, token in tok.vocab.items()}
    return BPETokenizer(vocab, tok.merges, names, tok.pattern)


def run_with(tok, path="runs/a", **change):
    """A run of a LLaMA with this tokenizer."""
    built = model("llama", **change)
    write_run(Path(path), Found(built.config, built.state_dict(), tok, Pretrained("made here")))
    return built


def test_special_tokens_keep_their_ids_wherever_they_are():
    """SmolLM2's <|im_start|>, id 1, was 49136 in the exported directory.

    tokenizers gives a special token that its model's vocabulary lacks the next free id.
    """
    tok = special_first()
    run_with(tok)
    main(["export", "a", "--to", "hf", "hf"])
    theirs = transformers.AutoTokenizer.from_pretrained("hf")
    text = "<|start|>user the fox<|end|>\n<|endoftext|>"
    ids = tok.encode(text, allowed_special="all")
    assert {0, 1, 2} < set(ids)
    assert theirs(text, add_special_tokens=False)["input_ids"] == ids
    assert theirs.decode(ids) == text
    assert "<|end|>" not in theirs.decode(ids, skip_special_tokens=True)
    for to in ("hf", "gguf"):
        main(["export", "a", "--to", to, f"{to}2"])
        main(["import", f"{to}2", "--run", f"b{to}"])
        equal_runs("runs/a", f"runs/b{to}")


def test_a_run_without_special_tokens(error_of):
    """transformers took 1 and 2 for their ids, llama.cpp would end a text at id 11."""
    run_with(BPETokenizer.train([TEXT * 3], 300, special_tokens=[]))
    main(["export", "a", "--to", "hf", "hf"])
    theirs = transformers.AutoModelForCausalLM.from_pretrained("hf")
    assert (theirs.config.bos_token_id, theirs.config.eos_token_id) == (None, None)
    assert theirs.generation_config.eos_token_id is None
    assert "llama.cpp would end texts" in error_of(main, "export", "a", "--to", "gguf", "a.gguf")
    assert not Path("a.gguf").exists()


def test_a_token_that_llama_cpp_finds_without_merges_is_refused(error_of):
    """It looks whole words up first where the pattern is LLaMA 3's; our merges make ab c of abc."""
    merges = [(b"a", b"b"), (b"b", b"c"), (b"a", b"bc")]
    tokens = [*(bytes([i]) for i in range(256)), b"ab", b"bc", b"abc"]
    run_with(BPETokenizer(dict(enumerate(tokens)), merges, ["<|endoftext|>"], "llama3"))
    assert "'abc'" in error_of(main, "export", "a", "--to", "gguf", "a.gguf")
    run_with(BPETokenizer(dict(enumerate(tokens)), merges, ["<|endoftext|>"], "gpt2"))
    main(["export", "a", "--to", "gguf", "a.gguf"])


@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_a_special_token_that_spells_another_is_refused(to, error_of):
    """Both formats know tokens by their spelling, and Ġ is that of a blank."""
    run_with(BPETokenizer.train([TEXT * 3], 290, special_tokens=["<|endoftext|>", "Ġ"]))
    assert "'Ġ' is spelt as another" in error_of(main, "export", "a", "--to", to, "out")
    assert not Path("out").exists()


def test_what_float16_does_not_reach_is_refused(error_of):
    """It became inf, with a warning of numpy's."""
    built = model("llama")
    with torch.no_grad():
        built.blocks[1].mlp.up.weight[2, 3] = -1e5
    found = Found(built.config, built.state_dict(), tokenizer(), Pretrained("made here"))
    write_run(Path("runs/a"), found)
    error = error_of(main, "export", "a", "--to", "gguf", "a.gguf", "--type", "F16")
    assert "blk.1.ffn_up.weight has 100000" in error
    assert not Path("a.gguf").exists()
    main(["export", "a", "--to", "gguf", "a.gguf"])


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
    ({"rope_scaling": NTK}, "gguf", "GGUF"),
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


@pytest.fixture
def small_files():
    """No file may grow past 60 KB, as on a disk that is full: the system says so in the middle."""
    resource = pytest.importorskip("resource", reason="Windows has no limit on files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)  # Python ignores its signal, and gets EFBIG

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_a_full_disk_leaves_nothing(to, error_of, small_files):
    """safetensors and numpy have errors of their own for it: a traceback, and a count of bytes."""
    make_run("runs/a", "llama")
    small_files()
    error = error_of(main, "export", "a", "--to", to, "out")
    assert "error: cannot write out; is the disk full?" in error or "error: out: " in error
    assert not [p for p in Path().iterdir() if "out" in p.name]


@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_an_error_of_the_system_names_the_path(to, error_of, monkeypatch):
    make_run("runs/a", "llama")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("utils.hub.exporter.write_safetensors", full)
    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full)
    assert error_of(main, "export", "a", "--to", to, "out") == "error: out: No space left on device"
    assert not [p for p in Path().iterdir() if "out" in p.name]


def test_scores_of_another_checkpoint_stay_out_of_the_card():
    make_run("runs/a", "llama")
    score = {"val_loss": 1.0, "ppl": 2.7183, "bits_per_byte": 1.25}
    for step, shown in ((7, False), (0, True)):  # the run was imported: step 0
        values = {"checkpoint": "last", "step": step, "text": "my.txt", "model": score}
        Path("runs/a/eval.json").write_text(json.dumps(values))
        main(["export", "a", "--to", "hf", f"out{step}"])
        assert ("1.2500" in Path(f"out{step}/README.md").read_text()) is shown


@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_one_line_says_what_was_written_and_how_large_it_is(to, capsys):
    make_run("runs/a", "gpt2")
    capsys.readouterr()
    main(["export", "a", "--to", to, "out"])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("out: ")
    assert " MB; " in line


def test_every_family_is_tried():
    assert set(FAMILIES) == {kind for kind, _ in MODELS}
