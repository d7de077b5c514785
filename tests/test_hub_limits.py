"""Import and export where something is odd: damaged files beside, what formats say twice, paths."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from hub_models import TEXT, make_run, tokenizer

from tok import BPETokenizer
from utils.hub.__main__ import main
from utils.hub.importer import LONGEST, import_source
from utils.hub.weights import read_safetensors
from utils.training.models import load_model

os.environ["HF_HUB_OFFLINE"] = "1"
gguf = pytest.importorskip("gguf", reason="pip install 'llm-tiny[hub]'")
safetensors = pytest.importorskip("safetensors.torch", reason="pip install 'llm-tiny[hub]'")
transformers = pytest.importorskip("transformers", reason="pip install transformers")
tokenizers = pytest.importorskip("tokenizers", reason="pip install tokenizers")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def exported(kind="llama", to="hf", path="theirs"):
    make_run("runs/a", kind)
    main(["export", "a", "--to", to, path])


def changed_weights(change):
    """Rewrite the directory's weights."""
    path = Path("theirs/model.safetensors")
    state = read_safetensors(path)
    safetensors.save_file(change(state), path, metadata={"format": "pt"})


def test_our_own_metadata_has_to_agree_with_the_formats(error_of):
    """A GGUF whose llm_tiny.config says another context than llama.context_length."""
    exported(to="gguf", path="a.gguf")
    raw = Path("a.gguf").read_bytes()
    assert raw.count(b'"norm_eps": 1e-06') == 1
    Path("b.gguf").write_bytes(raw.replace(b'"norm_eps": 1e-06', b'"norm_eps": 2e-06'))
    error = error_of(main, "import", "b.gguf", "--run", "b")
    assert "llm_tiny.config has norm_eps=2e-06, the other metadata 1e-06" in error
    assert not Path("runs/b").exists()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_weights_of_odd_shapes_are_one_line(kind, error_of):
    exported(kind)
    name = {"gpt2": "transformer.h.0.attn.c_attn.weight"}.get(
        kind, "model.layers.0.self_attn.k_proj.weight"
    )
    changed_weights(lambda state: {**state, name: state[name][:, :-1].contiguous()})
    error = error_of(main, "import", "theirs", "--run", "b")
    assert "\n" not in error
    assert "theirs" in error
    assert not Path("runs/b").exists()


def test_a_weight_that_is_there_twice_is_refused(error_of):
    exported("gpt2")
    changed_weights(lambda s: {**s, "wte.weight": 2 * s["transformer.wte.weight"]})
    error = error_of(main, "import", "theirs", "--run", "b")
    assert "wte.weight is there twice, also as transformer.wte.weight" in error


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_gpt2s_masks_and_both_styles_of_names(dtype, prefix):
    exported("gpt2")

    def older(state):
        bare = {k.removeprefix("transformer."): v for k, v in state.items()}
        mask = torch.ones(48, 48).tril().to(dtype)[None, None]
        return {
            **{prefix + k: v for k, v in bare.items()},
            f"{prefix}h.0.attn.bias": mask,
        }

    changed_weights(older)
    main(["import", "theirs", "--run", "b"])
    x = torch.tensor([[5, 80, 7] * 9])
    a, b = (load_model(Path(f"runs/{name}"))[0].eval()(x)[0] for name in "ab")
    assert torch.equal(a, b)


def test_data_types_that_nobody_reads_are_named(error_of):
    exported(to="gguf", path="a.gguf")
    writer = gguf.GGUFWriter("b.gguf", "llama")
    reader = gguf.GGUFReader("a.gguf")
    for field in reader.fields.values():
        if not field.name.startswith(("GGUF.", "general.architecture", "llm_tiny")):
            sub = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub)
    for t in reader.tensors:
        array = t.data.astype("int32") if t.name == "output_norm.weight" else t.data
        writer.add_tensor(t.name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    error = error_of(main, "import", "b.gguf", "--run", "b")
    assert "'output_norm.weight' is of the data type I32" in error


@pytest.mark.parametrize(("file", "text", "says"), [
    ("eval.json", "{", "eval.json is damaged"),
    ("eval.json", "[]", "eval.json is damaged"),
    ("eval.json", '{"step": 0, "model": {"ppl": 3}}', "run eval.py again"),
    ("summary.json", "3", "summary.json is damaged"),
    ("pretrained.json", '{"version": 1}', "pretrained.json is damaged"),
])  # fmt: skip
def test_damaged_files_beside_a_run_stop_an_export_in_one_line(file, text, says, error_of):
    make_run("runs/a", "llama")
    Path("runs/a", file).write_text(text, encoding="utf-8")
    assert says in error_of(main, "export", "a", "--to", "hf", "out")
    assert not Path("out").exists()


def test_sources_that_are_none(error_of):
    make_run("runs/a", "llama")
    assert "runs/a is a run already" in error_of(main, "import", "a", "--run", "b")
    exported(path="a")  # a directory of the run's name is a source, and so is smollm2
    main(["import", "a", "--run", "b"])
    assert (Path("runs/b") / "best.pt").exists()
    error = error_of(main, "import", "owner/name")
    assert "nothing is fetched from a hub" in error
    assert "hf download owner/name --local-dir name" in error


def test_a_run_that_is_moved_aside_is_told(capsys):
    exported()
    main(["import", "theirs", "--run", "b"])
    capsys.readouterr()
    main(["import", "theirs", "--run", "b"])
    assert "note: runs/b was there; it is runs/b-1 now" in capsys.readouterr().err


def test_commands_and_cards_are_fit_to_be_passed_on(capsys):
    """Paths are quoted, and no card has the whole path of a source."""
    make_run("runs/a b", "llama")
    main(["export", "a b", "--to", "gguf", "my file.gguf"])
    assert "llama-cli -m 'my file.gguf'" in capsys.readouterr().out
    source = Path("deep/theirs").absolute()
    main(["export", "a b", "--to", "hf", str(source)])
    main(["import", str(source), "--run", "c d"])
    assert "sample.py --run 'runs/c d'" in capsys.readouterr().out
    main(["export", "c d", "--to", "hf", "again"])
    card = Path("again/README.md").read_text(encoding="utf-8")
    assert "started from theirs" in card
    assert str(source.parent) not in card


def test_what_killed_writers_left_goes_after_a_day():
    exported()
    old = time.time() - 90000
    for left in ".out-77", "runs/.b-77":
        Path(left).mkdir()
        Path(left, "tokenizer.json").write_text("torn", encoding="utf-8")
        os.utime(left, (old, old))
    Path("runs/.b-78").mkdir()  # of a writer at work
    main(["export", "a", "--to", "hf", "out"])
    main(["import", "theirs", "--run", "b"])
    assert not Path(".out-77").exists()
    assert not Path("runs/.b-77").exists()
    assert Path("runs/.b-78").exists()


def test_a_context_that_cannot_be_meant_is_refused(error_of):
    exported()
    path = Path("theirs/config.json")
    said = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**said, "max_position_embeddings": LONGEST + 1}), encoding="utf-8")
    assert "lower max_position_embeddings" in error_of(main, "import", "theirs", "--run", "b")


def test_what_a_tokenizer_does_beside_ours_is_told(capsys):
    """A token put before each text, and added tokens that any text may have."""
    exported()
    path = Path("theirs/tokenizer.json")
    said = json.loads(path.read_text(encoding="utf-8"))
    start = said["added_tokens"][1]
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": start["content"], "type_id": 0}}],
        "pair": [],
        "special_tokens": {start["content"]: {"ids": [start["id"]]}},
    }
    said["post_processor"] = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, template]}
    said["added_tokens"][2]["special"] = False
    said["normalizer"] = {"type": "Sequence", "normalizers": []}
    path.write_text(json.dumps(said), encoding="utf-8")
    main(["import", "theirs", "--run", "b"])
    out = capsys.readouterr().out
    assert f"puts {start['content']} around a text" in out
    assert f"{said['added_tokens'][2]['content']!r} in a text is text here" in out


@pytest.mark.parametrize(("change", "says"), [
    ({"post_processor": ["ByteLevel"]}, "tokenizer.json is damaged"),
    ({"post_processor": {"processors": [3]}}, "tokenizer.json is damaged"),
    ({"added_tokens": [{"content": "x", "id": 3}, {"content": "x", "id": 4}]}, "two ids"),
    ({"added_tokens": [{"content": "a", "id": 299}]}, "two ids"),
    ({"added_tokens": [{"content": "a"}]}, "bring back a whole one"),
    ({"pre_tokenizer": 3}, "tokenizer.json"),
    ({"model": {"type": "BPE", "merges": 3, "vocab": {}}}, "tokenizer.json"),
])  # fmt: skip
def test_an_odd_tokenizer_is_one_line(change, says, error_of):
    exported()
    path = Path("theirs/tokenizer.json")
    said = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**said, **change}), encoding="utf-8")
    error = error_of(main, "import", "theirs", "--run", "b")
    assert says in error
    assert not Path("runs/b").exists()


def test_a_tokenizer_without_added_tokens_is_read(tmp_path):
    """The file of `tokenizers`' own ByteLevelBPETokenizer."""
    theirs = tokenizers.ByteLevelBPETokenizer()
    theirs.train_from_iterator([TEXT * 9], vocab_size=300, show_progress=False)
    theirs.save("t.json")
    ours = BPETokenizer.from_hf("t.json")
    text = TEXT + " naïve 漢字"
    assert ours.encode(text) == theirs.encode(text).ids


def test_a_directory_in_the_manner_of_llama_3():
    """Its pattern, special tokens and scaling, random weights: ids and logits of transformers."""
    tok = BPETokenizer.train(
        [TEXT * 9 + "in 2026, 12345 foxes "], 320, pattern="llama3",
        special_tokens=["<|begin_of_text|>", "<|eot_id|>", "<|end_of_text|>"],
    )  # fmt: skip
    config = transformers.LlamaConfig(
        vocab_size=tok.vocab_size, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        bos_token_id=tok.special_tokens["<|begin_of_text|>"],
        eos_token_id=[tok.special_tokens["<|eot_id|>"]],
        rope_parameters={
            "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
        },
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.LlamaForCausalLM(config).eval()
    theirs.save_pretrained("theirs")
    tok.save_hf("theirs/tokenizer.json")
    import_source("theirs", "mine")
    ours, ids, _ = load_model(Path("runs/mine"))
    text = TEXT + "12345678 \n\n naïve"
    auto = transformers.AutoTokenizer.from_pretrained("theirs")
    assert ids.encode(text) == auto(text, add_special_tokens=False)["input_ids"]
    x = torch.tensor([ids.encode(text)[:60]])
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x)[0], theirs(x).logits, atol=1e-5, rtol=1e-5)
    main(["export", "mine", "--to", "hf", "out"])
    again = transformers.AutoModelForCausalLM.from_pretrained("out").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(x).logits, theirs(x).logits, atol=1e-5, rtol=1e-5)
    shutil.rmtree("out")
    assert tokenizer("llama3").pattern == "llama3"
