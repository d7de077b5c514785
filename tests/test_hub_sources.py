"""What models from elsewhere say of themselves: read as the peer reads it, or refused."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_models import TEXT, model, tokenizer

from model import TinyGPT
from model.convert import config_from_hf, config_to_hf, llama_to_hf
from model.convert.gguf import FREQS, slower, to_gguf, with_slower
from tok import BPETokenizer
from tok.bpe.interop import spelt
from utils.hub.importer import as_run, import_source
from utils.hub.pretrained import read_pretrained
from utils.hub.sources import from_gguf_file
from utils.hub.weights import read_safetensors
from utils.training.models import load_model

os.environ["HF_HUB_OFFLINE"] = "1"
gguf = pytest.importorskip("gguf", reason="pip install 'llm-tiny[hub]'")
safetensors = pytest.importorskip("safetensors.torch", reason="pip install 'llm-tiny[hub]'")
transformers = pytest.importorskip("transformers", reason="pip install transformers")
GPT2 = {"n_positions": 48, "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 300}
LLAMA = {"max_position_embeddings": 48, "hidden_size": 64, "num_hidden_layers": 2}
LLAMA |= {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96}
LLAMA |= {"vocab_size": 300}
NTK = "ntk factor=2 original_max_position_embeddings=16"


def directory(kind):
    """A directory as transformers saves it, with weights that are far from their start."""
    torch.manual_seed(1)
    if kind == "gpt2":
        made = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))
    else:
        made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA))
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.05 * torch.randn_like(p))
    made.save_pretrained("theirs")
    tokenizer().save_hf("theirs/tokenizer.json")


def said(left_out=(), **change):
    """Change the directory's config.json."""
    path = Path("theirs/config.json")
    whole = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({k: v for k, v in whole.items() if k not in left_out}))


def same_logits():
    """The directory as a run, and by transformers."""
    import_source("theirs", "mine")
    ours = load_model(Path("runs/mine"))[0].eval()
    theirs = transformers.AutoModelForCausalLM.from_pretrained("theirs").eval()
    x = torch.tensor([[5, 80, 7] * 13, [260, 9, 33] * 13])
    with torch.no_grad():
        torch.testing.assert_close(ours(x)[0], theirs(x).logits, atol=1e-5, rtol=1e-5)


# -- config.json


@pytest.mark.parametrize(
    ("kind", "left_out", "change"),
    [
        ("llama", ["rms_norm_eps"], {}),  # 1e-6 there, not our 1e-5
        ("llama", ["hidden_act"], {}),
        ("llama", [], {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}),
        ("llama", ["rope_parameters"], {"rope_scaling": {"type": "linear", "factor": 3.0}}),
        ("gpt2", ["activation_function"], {}),
        ("gpt2", [], {"activation_function": "gelu_pytorch_tanh"}),
    ],
)
def test_what_is_left_out_or_rare_is_read_as_transformers_does(kind, left_out, change):
    directory(kind)
    if "rope_parameters" in change:  # as if there were a length of its own, which counts nowhere
        rope = {**change["rope_parameters"], "original_max_position_embeddings": 16}
        change = {"rope_parameters": {**rope, "rope_theta": 1e4}}
    said(left_out, **change)
    same_logits()


YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16}
WAVES = {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0}
HOSTILE = [
    ("num_attention_heads", 0, "n_head=0 must be at least 1"),
    ("num_attention_heads", "4", "another type"),
    ("num_hidden_layers", 10**8, "not what the config says"),
    ("num_hidden_layers", 2.5, "n_layer=2.5 is no whole number"),
    ("num_hidden_layers", None, "no num_hidden_layers"),
    ("max_position_embeddings", 10**12, "is more than"),
    ("max_position_embeddings", 3.5, "block_size=3.5 is no whole number"),
    ("intermediate_size", 10**10, "not what the config says"),
    ("vocab_size", "300", "vocab_size='300' is no whole number"),
    ("rms_norm_eps", "small", "norm_eps='small' is no number"),
    ("model_type", ["llama"], "is not gpt2 or llama"),
    ("model_type", "mistral", "it is llama with a sliding window"),
    ("hidden_act", ["silu"], "has no counterpart"),
    ("tie_word_embeddings", True, "the head is another"),
    ("partial_rotary_factor", 0.5, "partial_rotary_factor=0.5"),
    ("rope_parameters", [1], "is no object"),
    ("rope_parameters", {"rope_type": ["linear"]}, "rope_type="),
    ("rope_parameters", {"full_attention": {"rope_type": "linear"}}, "full_attention="),
    ("rope_parameters", {**YARN, "rope_theta": 1.0}, "waves of different lengths"),
    ("rope_parameters", {**YARN, "truncate": False}, "truncate=False"),
    ("rope_parameters", WAVES, "must be above"),
    ("rope_parameters", {"rope_type": "linear", "factor": "x"}, "'x'"),
    ("rope_scaling", {"type": "linear", "factor": 3.0}, "both there and differ"),
]


@pytest.mark.parametrize(("key", "value", "says"), HOSTILE)
def test_what_a_config_may_not_say(key, value, says):
    """Each was a crash, a hang, gigabytes, or other logits than transformers'."""
    directory("llama")
    said(**{key: value})
    with pytest.raises(ValueError, match=says) as e:
        import_source("theirs", "mine")
    assert "\n" not in str(e.value)
    assert not Path("runs/mine").exists()


def test_gpt2_without_scaled_attention_is_refused():
    directory("gpt2")
    said(scale_attn_weights=False)
    with pytest.raises(ValueError, match="scale_attn_weights=False"):
        import_source("theirs", "mine")


def test_a_head_that_is_missing_is_not_made_up():
    directory("llama")
    state = safetensors.load_file("theirs/model.safetensors")
    del state["lm_head.weight"]
    safetensors.save_file(state, "theirs/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="there is no head; set it to true"):
        import_source("theirs", "mine")
    said(tie_word_embeddings=True)
    same_logits()


def test_masks_of_older_files_are_passed_over():
    directory("gpt2")
    state = safetensors.load_file("theirs/model.safetensors")
    state |= {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 48, 48).bool() for i in (0, 1)}
    safetensors.save_file(state, "theirs/model.safetensors", metadata={"format": "pt"})
    names = read_safetensors(Path("theirs/model.safetensors"))
    assert not [name for name in names if name.endswith(".attn.bias")]
    import_source("theirs", "mine")
    state["transformer.wte.weight"] = state["transformer.wte.weight"].to(torch.int32)
    safetensors.save_file(state, "theirs/model.safetensors")
    with pytest.raises(ValueError, match="of type 'I32'"):
        import_source("theirs", "other")


def test_a_name_that_is_there_twice_is_refused():
    row = '{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}'
    table = f'{{"a":{row % (1, 4)},"a":{row % (2, 8)}}}'.encode()
    Path("a.safetensors").write_bytes(len(table).to_bytes(8, "little") + table + bytes(8))
    with pytest.raises(ValueError, match="'a' is there twice"):
        read_safetensors(Path("a.safetensors"))


def test_ends_of_a_text_by_the_config_alone():
    """GPT-2's published directory names its end in config.json, by id."""
    directory("gpt2")
    said(bos_token_id=[297], eos_token_id=299)
    origin = read_pretrained(import_source("theirs", "mine"))
    names = {i: name for name, i in tokenizer().special_tokens.items()}
    assert (origin.bos, origin.eos) == (names[297], names[299])


def test_of_several_chat_templates_the_default_counts():
    directory("gpt2")
    several = [{"name": "tools", "template": "b"}, {"name": "default", "template": "a"}]
    Path("theirs/tokenizer_config.json").write_text(json.dumps({"chat_template": several}))
    assert read_pretrained(import_source("theirs", "mine")).chat_template == "a"


def test_init_does_not_take_a_run_that_comes_from_elsewhere():
    directory("gpt2")
    Path("one").mkdir()
    Path("theirs").rename("one/mine")
    assert as_run("one/mine") == "mine"
    assert as_run("one/mine") == "mine"
    file = Path("runs/mine/pretrained.json")
    sha256 = read_pretrained(file.parent).sha256
    file.write_text(file.read_text().replace(sha256, 64 * "0"))  # as if other files lay there
    with pytest.raises(ValueError, match="is another run"):
        as_run("one/mine")


@pytest.mark.parametrize("T", [16, 48])
def test_ntk_leaves_by_the_base_that_it_takes(T):
    """transformers' dynamic scales by the text's own length, beyond max_position_embeddings."""
    ours = model("llama", rope_scaling=NTK, block_size=T)
    theirs = config_to_hf(ours.config)
    rope = theirs["rope_parameters"]
    assert rope["rope_type"] == ("default" if T == 48 else "dynamic")
    peer = transformers.LlamaForCausalLM(transformers.LlamaConfig(**theirs)).eval()
    peer.load_state_dict(llama_to_hf(ours.state_dict()))
    back = TinyGPT(config_from_hf(theirs)).eval()
    back.load_state_dict(ours.state_dict())
    x = torch.arange(2 * T).view(2, T) % 250
    with torch.no_grad():
        torch.testing.assert_close(ours(x)[0], peer(x).logits, atol=1e-5, rtol=1e-5)
        assert torch.equal(ours(x)[0], back(x)[0])


# -- GGUF


def write_gguf(built, *, pre="smollm", more=(), change=None, types=None, freqs=None):
    """A file as llama.cpp's converter writes one, which knows nothing of us."""
    c, tok = built.config, tokenizer("gpt2_digits")
    w = gguf.GGUFWriter("a.gguf", "llama")
    numbers = {"context_length": c.block_size, "embedding_length": c.d_model}
    numbers |= {"block_count": c.n_layer, "feed_forward_length": c.hidden}
    numbers |= {"attention.head_count": c.n_head, "attention.head_count_kv": c.kv_heads}
    numbers |= {"rope.freq_base": c.rope_theta, "attention.layer_norm_rms_epsilon": c.norm_eps}
    kinds = {float: w.add_float32, str: w.add_string, list: w.add_array, int: w.add_uint64}
    for key, value in {**numbers, **(change or {})}.items():
        kinds[type(value)](f"llama.{key}", value)
    w.add_tokenizer_model("gpt2")
    if pre:
        w.add_tokenizer_pre(pre)
    special = set(tok.special_tokens.values())
    tokens = [t.decode() if i in special else spelt(t) for i, t in sorted(tok.vocab.items())]
    w.add_token_list([*tokens, *more])
    w.add_token_types([*(3 if i in special else 1 for i in range(len(tokens))), *(types or ())])
    w.add_token_merges([f"{spelt(a)} {spelt(b)}" for a, b in tok.merges])
    state = to_gguf("llama", built.state_dict(), c)
    state |= {} if freqs is None else {FREQS: freqs}
    for name, tensor in state.items():
        w.add_tensor(name, tensor.numpy())
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return tok


def test_a_file_of_llama_cpps_converter():
    built = model("llama")
    tok = write_gguf(built)
    run = import_source("a.gguf", "mine")
    ours, its, _ = load_model(run)
    assert ours.config == built.config
    assert its.encode(TEXT) == tok.encode(TEXT)
    assert its.pattern == "gpt2_digits"
    x = torch.arange(80).view(2, 40)
    assert torch.equal(ours.eval()(x)[0], built(x)[0])


def test_llama3s_scaling_is_found_in_its_factors():
    """GGUF has no key for it, a tensor instead; it was passed over, and long texts read wrongly."""
    scaling = "llama3 factor=32 low_freq_factor=1 high_freq_factor=4"
    scaling += " original_max_position_embeddings=64"
    built = model("llama", rope_scaling=scaling, rope_theta=100.0)
    write_gguf(built)
    found = from_gguf_file(Path("a.gguf"))
    x = torch.arange(80).view(2, 40)
    ours = load_model(import_source("a.gguf", "mine"))[0].eval()
    assert torch.equal(ours(x)[0], built(x)[0])
    config = replace(built.config, rope_scaling=found.config.rope_scaling)
    assert torch.equal(slower(config), slower(built.config))
    factors = slower(built.config)
    plain = replace(built.config, rope_scaling="")
    for wrong in (factors[:-1], factors * 1.1, factors.flip(0), torch.full((8,), torch.nan)):
        with pytest.raises(ValueError, match="LLaMA 3's"):
            with_slower(plain, wrong)


def test_rows_to_spare_in_the_embedding():
    """llama.cpp's converter names them in the vocabulary; they are no tokens."""
    small = model("llama")
    built = TinyGPT(replace(small.config, vocab_size=303)).eval()
    tok = write_gguf(built, more=["[PAD300]", "[PAD301]", "[PAD302]"], types=[5, 5, 5])
    ours, its, _ = load_model(import_source("a.gguf", "mine"))
    assert (its.vocab_size, ours.config.vocab_size) == (tok.vocab_size, 303)


ODD = [
    ({"attention.head_count": 0}, "n_head=0"),
    ({"attention.head_count": [4, 4]}, "differ in shape"),
    ({"block_count": 10**8}, "not what the config says"),
    ({"context_length": 2**40}, "is more than"),
    ({"context_length": 48.0}, "block_size=48.0 is no whole number"),
    ({"context_length": "48"}, "differ in shape"),
    ({"rope.freq_base": 1.0, "rope.scaling.type": "yarn"}, "waves of different lengths"),
    ({"rope.scaling.type": "longrope"}, "'longrope' is not linear or yarn"),
    ({"rope.scaling.attn_factor": 2.0}, "llama.rope.scaling.attn_factor=2.0"),
    ({"rope.scale_linear": 4.0}, "llama.rope.scale_linear=4.0"),
    ({"attention.sliding_window": 16}, "llama.attention.sliding_window=16"),
    ({"expert_count": 4}, "mixture of experts"),
]


@pytest.mark.parametrize(("change", "says"), ODD)
def test_what_metadata_may_not_say(change, says):
    write_gguf(model("llama"), change=change)
    with pytest.raises(ValueError, match=says) as e:
        import_source("a.gguf", "mine")
    assert "\n" not in str(e.value)
    assert not Path("runs/mine").exists()


@pytest.mark.parametrize("pre", [None, "default", "qwen2"])
def test_a_way_to_split_words_is_not_guessed(pre):
    write_gguf(model("llama"), pre=pre)
    with pytest.raises(ValueError, match=f"tokenizer.ggml.pre={pre!r} splits words"):
        import_source("a.gguf", "mine")


# -- tokenizers


def test_ignore_merges_that_matters_is_refused(tmp_path):
    """With merges ab, bc, a+bc the bytes abc become ab+c, though there is a token abc."""
    merges = [(b"a", b"b"), (b"b", b"c"), (b"a", b"bc")]
    vocab = {i: bytes([i]) for i in range(256)}
    vocab |= {256 + i: a + b for i, (a, b) in enumerate(merges)}
    path = tmp_path / "t.json"
    for n, refused in ((2, False), (3, True)):
        known = {i: t for i, t in vocab.items() if i < 256 + n}
        BPETokenizer(known, merges[:n]).save_hf(path)
        found = json.loads(path.read_text())
        found["model"]["ignore_merges"] = True
        path.write_text(json.dumps(found))
        if refused:
            with pytest.raises(ValueError, match="ignore_merges finds 'abc'"):
                BPETokenizer.from_hf(path)
        else:
            assert BPETokenizer.from_hf(path).encode("abc") == [256, 99]


def test_llama3_splits_as_tokenizers_does():
    tokenizers = pytest.importorskip("tokenizers")
    ours = tokenizer("llama3")
    ours.save_hf("t.json")
    theirs = tokenizers.Tokenizer.from_file("t.json")
    r = np.random.default_rng(5)
    letters = list("ab12 \n\r\t'sSdé½²漢.,!-\u3000\xa0\x85")
    for _ in range(3000):
        text = "".join(r.choice(letters, r.integers(0, 14)))
        assert ours.encode(text) == theirs.encode(text).ids, repr(text)
    assert BPETokenizer.from_hf("t.json").pattern == "llama3"


# -- a disk that is full


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of POSIX")
@pytest.mark.parametrize("most", [1000, 20_000, 200_000])
def test_a_file_that_can_not_grow_leaves_no_run(most):
    """The kernel refuses to write on, as on a full disk, in the tokenizer or in the weights."""
    directory("llama")
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most})); "
    code += "from tok.cli import run; from utils.hub.__main__ import main; run(main)"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", code, "import", "theirs", "--run", "mine"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not [p for p in Path("runs").iterdir() if "mine" in p.name]
