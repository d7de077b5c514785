"""A run leaves for other programs: a Hugging Face directory, a GGUF file, peft's adapters."""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from torch import Tensor

from data.store import new_directory
from model import BertConfig, GPTConfig, TinyGPT
from model.convert import bert_to_hf, config_to_hf, gpt2_to_hf, llama_to_hf
from model.convert.gguf import config_to_gguf, to_gguf
from tok import END_OF_TEXT, BPETokenizer, Tokenizer, WordPieceTokenizer
from tok.bpe.interop import check_ignored_merges, spellings, spelt
from tok.bpe.storage import Parts
from tok.files import replacing
from utils.hub.card import loader, model_card
from utils.hub.gguf import package
from utils.hub.pretrained import Pretrained, ends, read_pretrained
from utils.hub.sources import CONTROL, PRE
from utils.hub.tokenizers import bert_described, write_tokenizer
from utils.hub.weights import write_safetensors
from utils.training.models import in_floats, load_model

ARCHITECTURES = {"gpt2": ["GPT2LMHeadModel"], "llama": ["LlamaForCausalLM"]}
TO_HF = {"gpt2": gpt2_to_hf, "llama": llama_to_hf, "bert": bert_to_hf}
# a tied head is left out, by all names that it has
TIED = ("lm_head.weight", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
FILES = {"config.json", "generation_config.json", "model.safetensors", "README.md"}
FILES |= {"vocab.txt", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
FILES |= {"adapter_config.json", "adapter_model.safetensors"}
ROW = 32  # values in a block of Q8_0
MOST = 65504  # float16's largest number
PRE_OF = {pattern: pre for pre, pattern in reversed(PRE.items())}  # gpt2 -> gpt-2


def export(run: Path, to: str, path: str, *, dtype: str = "F32", which: str = "best") -> None:
    """Write a run's model and tokenizer to `path`, whole or not at all, and say what was written.

    Raises ValueError for what the format can't say, or a path that holds something else.
    """
    model, tokenizer, checkpoint = load_model(run, which, kind="")
    bert = isinstance(model.config, BertConfig)
    if not isinstance(tokenizer, (BPETokenizer, WordPieceTokenizer) if bert else BPETokenizer):
        kind = type(tokenizer).__name__
        raise ValueError(f"{run} has a {kind}, which no other program reads; train with BPE")
    origin = read_pretrained(run) or Pretrained(run.name)
    model = in_floats(model)
    if to == "hf":
        written = write_hf(Path(path), run, model, tokenizer, origin, checkpoint)
    else:
        bpe: Any = tokenizer  # or it is a BERT, which has been refused
        written = write_gguf(Path(path), run, model, bpe, origin, dtype)
    print(f"{path}: {written}")


@contextmanager
def named(path: Path) -> Iterator[None]:
    """OSErrors from within name the path, also those of packages that have none to give."""
    try:
        yield
    except OSError as e:
        if e.errno is None:
            raise OSError(f"cannot write {path}; is the disk full? ({e})") from None
        raise type(e)(e.errno, e.strerror, str(path)) from None


@contextmanager
def free_directory(path: Path) -> Iterator[Path]:
    """A directory to fill, which becomes `path` at the end. ValueError if that holds something."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} exists; choose another, or remove it")
    with named(path), new_directory(path, FILES) as new:
        yield new


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def own_state(model: TinyGPT) -> dict[str, Tensor]:
    """The weights in float32; a tied head shares the embedding's memory, as in a state dict."""
    return {name: tensor.detach().float() for name, tensor in model.state_dict().items()}


def write_hf(
    path: Path,
    run: Path,
    model: TinyGPT,
    tokenizer: Tokenizer,
    origin: Pretrained,
    checkpoint: dict[str, Any],
) -> str:
    """Write what AutoModelFor... and AutoTokenizer load; what it is, in a few words."""
    bert = isinstance(model.config, BertConfig)
    config = config_to_hf(model.config)
    kind, tokens = config["model_type"], ends(tokenizer, origin)
    if bert:
        names, tokens = class_names(model.config, checkpoint), {"pad": "[PAD]"}
        config |= {"id2label": dict(enumerate(names))} if names else {}
    ids = {f"{name}_token_id": tokenizer.special_tokens[t] for name, t in tokens.items()}
    none = dict.fromkeys(("bos_token_id", "eos_token_id"))  # else transformers has ids of its own
    state = TO_HF[kind](own_state(model))
    if model.config.tie_weights:
        state = {name: tensor for name, tensor in state.items() if name not in TIED}
    config = {"architectures": ARCHITECTURES.get(kind), **config}
    special = {f"{name}_token": token for name, token in tokens.items()}
    described: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    described["clean_up_tokenization_spaces"] = False
    described["model_input_names"] = ["input_ids", "attention_mask"]  # transformers 4 has a third
    described["model_max_length"] = model.config.block_size
    with free_directory(path) as new:
        write_json(new / "config.json", {"dtype": "float32", **config, **none, **ids})
        write_safetensors(new / "model.safetensors", state)
        write_tokenizer(new, tokenizer, pairs=bert)
        described |= bert_described(new, tokenizer) if bert else {}
        write_json(new / "tokenizer_config.json", described)
        if not bert:
            write_json(new / "generation_config.json", ids)
        if origin.chat_template:
            (new / "chat_template.jinja").write_text(origin.chat_template, encoding="utf-8")
        card = model_card(run, path.name, model, origin, checkpoint)
        (new / "README.md").write_text(card, encoding="utf-8")
    load = f"{loader(model.config)[0]}.from_pretrained({str(path)!r})"
    return f"{config['architectures'][0]}, {megabytes(*path.iterdir())}; {load}"


def class_names(config: GPTConfig, checkpoint: dict[str, Any]) -> list[str]:
    """Names of a classifier's classes: of the texts that it learnt from, or LABEL_0 and so on."""
    n = getattr(config, "classes", 0)
    names = list(checkpoint["data"].get("sources", {}))
    return names if len(names) == n else [f"LABEL_{i}" for i in range(n)]


def megabytes(*files: Path) -> str:
    """How large files are together: "540 MB"."""
    return f"{sum(file.stat().st_size for file in files) / 1e6:,.1f} MB"


def ggml_type(name: str, tensor: Tensor, dtype: str) -> str:
    """What a tensor is written as: vectors and positions stay F32.

    Raises ValueError for odd rows, and for numbers that are too large.
    """
    if dtype == "F32" or tensor.ndim < 2 or name.startswith("position_embd"):
        return "F32"
    if dtype == "F16" and (most := float(tensor.abs().max())) > MOST:
        raise ValueError(f"F16 ends at {MOST}; {name} has {most:g}: take F32")
    if dtype == "Q8_0" and tensor.size(-1) % ROW:
        width = tensor.size(-1)
        raise ValueError(f"Q8_0 needs rows of a multiple of {ROW}; {name} has {width}: take F16")
    return dtype


def write_gguf(
    path: Path,
    run: Path,
    model: TinyGPT,
    tokenizer: BPETokenizer,
    origin: Pretrained,
    dtype: str,
) -> str:
    """Write what llama.cpp loads; what it is, in a few words."""
    gguf = package()
    arch, metadata = config_to_gguf(model.config)
    check_tokenizer(tokenizer, origin)
    state = to_gguf(arch, own_state(model), model.config)
    types = {name: ggml_type(name, tensor, dtype) for name, tensor in state.items()}
    if path.is_dir():
        raise ValueError(f"{path} is a directory; name a file, say {path / 'model.gguf'}")
    if path.exists():
        raise ValueError(f"{path} exists; choose another, or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        named(path),
        replacing(path) as part,
        closing(gguf.GGUFWriter(part, arch)) as writer,
    ):
        add_metadata(writer, {**metadata, "llm_tiny.config": json.dumps(asdict(model.config))})
        writer.add_name(run.name)
        if origin.license:
            writer.add_license(origin.license)
        add_tokenizer(writer, tokenizer, origin, model.config)
        for name, tensor in state.items():
            kind = gguf.GGMLQuantizationType[types[name]]
            array: np.ndarray = tensor.contiguous().numpy()
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    return f"{arch}, {dtype}, {megabytes(path)}; llama.cpp: llama-cli -m {quote(str(path))}"


def check_tokenizer(tokenizer: BPETokenizer, origin: Pretrained) -> None:
    """Raise ValueError for a tokenizer that llama.cpp would take for another."""
    if tokenizer.pattern not in PRE_OF:
        known = ", ".join(PRE_OF)
        raise ValueError(f"llama.cpp can't split words by {tokenizer.pattern!r}; known: {known}")
    if "eos" not in ends(tokenizer, origin):
        raise ValueError(f"llama.cpp would end texts at id 11: train one with {END_OF_TEXT}")
    if tokenizer.pattern == "llama3":  # llama.cpp takes a whole word first where it is a token
        t = tokenizer
        check_ignored_merges(Parts(t.vocab, t.merges, t.special_tokens, t.pattern))


def add_metadata(writer: Any, values: Mapping[str, int | float | str]) -> None:
    """Write keys and values, each as its kind of value is written."""
    add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for key, value in values.items():
        add[type(value)](key, value)


def add_tokenizer(
    writer: Any, tokenizer: BPETokenizer, origin: Pretrained, config: GPTConfig
) -> None:
    """Write a tokenizer's tokens and merges, and the chat template."""
    special = set(tokenizer.special_tokens.values())
    spelt_vocab = spellings(tokenizer.vocab, tokenizer.special_tokens)
    unused = range(tokenizer.vocab_size, config.vocab_size)
    tokens = [token for _, token in sorted(spelt_vocab.items())]
    tokens += [f"[unused{i}]" for i in unused]
    types = [CONTROL if i in special else 1 for i in range(tokenizer.vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_OF[tokenizer.pattern])
    writer.add_token_list(tokens)
    writer.add_token_types(types + [5 for _ in unused])
    writer.add_token_merges([f"{spelt(a)} {spelt(b)}" for a, b in tokenizer.merges])
    writer.add_add_bos_token(False)
    ids = {name: tokenizer.special_tokens[t] for name, t in ends(tokenizer, origin).items()}
    if "bos" in ids:
        writer.add_bos_token_id(ids["bos"])
    if "eos" in ids:
        writer.add_eos_token_id(ids["eos"])
    if origin.chat_template:
        writer.add_chat_template(origin.chat_template)
