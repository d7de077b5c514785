"""What is read from elsewhere: a Hugging Face directory or a GGUF file as a model in our names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.hashes import file_sha256, remembered, sha256
from model import BertConfig, GPTConfig
from model.convert import bert_from_hf, config_from_hf, gpt2_from_hf, llama_from_hf
from model.convert.bert import with_heads
from model.convert.gguf import FREQS, config_from_gguf, from_gguf, with_slower
from tok import BPETokenizer, Tokenizer
from tok.bpe.interop import check_ignored_merges, made_by
from tok.files import read_text
from utils.hub.gguf import GGUFFile, arrays
from utils.hub.package import SHA256, SMOLLM2, smollm2_file
from utils.hub.pretrained import Pretrained
from utils.hub.tokenizers import read_tokenizer
from utils.hub.weights import read_weights

PRE = {  # tokenizer.ggml.pre -> pattern; llama.cpp's "default" is none of them
    "gpt-2": "gpt2",
    "gpt2": "gpt2",
    "smollm": "gpt2_digits",
    "llama-bpe": "llama3",
    "llama3": "llama3",
    "llama-v3": "llama3",
}
CONTROL, USER, UNUSED = 3, 4, 5  # types of tokens in GGUF: two that are texts; rows to spare
BASES = {"gpt2": gpt2_from_hf, "llama": llama_from_hf, "bert": bert_from_hf}


@dataclass(frozen=True)
class Found:
    """A model from elsewhere, in our names."""

    config: GPTConfig
    state: Mapping[str, Tensor]
    tokenizer: Tokenizer
    origin: Pretrained
    notes: tuple[str, ...] = ()  # what its tokenizer does, and ours does not


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. ValueError for anything else."""
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{path} is no JSON ({str(e)[:80]})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {type(found).__name__}, not an object")
    return found


def from_directory(path: Path) -> Found:
    """Read a Hugging Face directory. ValueError for what is missing, damaged, or not ours."""
    if not (path / "config.json").exists():
        raise ValueError(f"{path} has no config.json; give a Hugging Face directory, or a run")
    hf = read_json(path / "config.json")
    try:
        config = config_from_hf(hf)
    except (TypeError, AttributeError, OverflowError) as e:
        raise ValueError(f"{path / 'config.json'}: a value is of another type ({e})") from None
    except ValueError as e:
        raise ValueError(f"{path / 'config.json'}: {e}") from None
    kind, said = hf["model_type"], path / "tokenizer_config.json"
    tokenizer = read_tokenizer(path, read_json(said) if said.exists() else {})
    weights = read_weights(path)
    try:
        state = BASES[kind](weights)
        check_head(config, state)
        if isinstance(config, BertConfig):
            return from_bert(config, state, tokenizer, origin_of(path, hf, tokenizer))
    except (ValueError, RuntimeError) as e:
        raise ValueError(f"{path}: {' '.join(str(e).split())[:200]}") from None
    try:
        notes = notes_on(read_json(path / "tokenizer.json"))
    except (AttributeError, KeyError, TypeError) as e:
        raise ValueError(
            f"{path / 'tokenizer.json'} is damaged ({type(e).__name__}: {e})"
        ) from None
    return Found(config, state, tokenizer, origin_of(path, hf, tokenizer), notes)


def from_bert(
    config: BertConfig, state: Mapping[str, Tensor], tokenizer: Tokenizer, origin: Pretrained
) -> Found:
    """A BERT with all its heads; notes say which of them the directory lacked."""
    full, drawn = with_heads(state, config)
    notes = [f"it has no {head}; this one is drawn at random, so train it first" for head in drawn]
    return Found(config, full, tokenizer, origin, tuple(notes))


def notes_on(tokenizer: Mapping[str, Any]) -> tuple[str, ...]:
    """What a tokenizer.json does to texts that ours leaves alone."""
    post = tokenizer.get("post_processor") or {}
    steps = post.get("processors", [post])
    around = {token for step in steps for token in step.get("special_tokens") or {}}
    plain = [t["content"] for t in tokenizer.get("added_tokens") or [] if not t.get("special")]
    notes = []
    if around:
        them = " and ".join(sorted(around))
        notes.append(
            f"its own tokenizer puts {them} around a text; here a prompt is as you write it"
        )
    if plain:
        notes.append(f"{plain[0]!r} in a text is text here, as all special tokens are")
    return tuple(notes)


def check_head(config: GPTConfig, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError if the head is tied but has weights of its own, or is not and has none."""
    head, embedding = state["head.weight"], state["tok_emb.weight"]
    if config.tie_weights and head is not embedding and not torch.equal(head, embedding):
        raise ValueError("tie_word_embeddings=true, but the head is another; set it to false")
    if not config.tie_weights and head is embedding:
        raise ValueError("tie_word_embeddings=false, but there is no head; set it to true")


def origin_of(path: Path, hf: Mapping[str, Any], tokenizer: Tokenizer) -> Pretrained:
    """What a directory says of its special tokens, its template and its licence."""
    file, template = path / "tokenizer_config.json", path / "chat_template.jinja"
    known = read_json(file) if file.exists() else {}

    texts = {i: text for text, i in tokenizer.special_tokens.items()}

    def special(key: str) -> str | None:
        token = known.get(key)
        token = token.get("content") if isinstance(token, dict) else token
        ids = hf.get(f"{key}_id")  # GPT-2's directory has nothing else
        i = ids[0] if isinstance(ids, list) and ids else ids
        token = token or (texts.get(i) if isinstance(i, int) else None)
        return token if token in texts.values() else None

    chat = read_text(template) if template.exists() else known.get("chat_template")
    if isinstance(chat, list):  # several, by names
        named = {t.get("name"): t.get("template") for t in chat if isinstance(t, dict)}
        chat = named.get("default")
    chat = chat if isinstance(chat, str) else None
    license = card_license(path / "README.md")
    bos, eos = special("bos_token"), special("eos_token")
    return Pretrained(path.name, license, hf["model_type"], bos, eos, chat)


def card_license(card: Path) -> str:
    """The licence that a model card names in its first lines, or nothing."""
    lines = read_text(card).splitlines()[:40] if card.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("license:")]
    return names[0] if names else ""


def from_gguf_file(path: Path) -> Found:
    """Read a GGUF file. ValueError for what is damaged, or not ours."""
    file = GGUFFile(path)
    try:
        return found_in(file)
    except ValueError as e:
        raise ValueError(str(e) if str(e).startswith(str(path)) else f"{path}: {e}") from None
    except (KeyError, TypeError, IndexError, AttributeError, RuntimeError) as e:
        said = " ".join(f"{type(e).__name__}: {e}".split())[:200]
        raise ValueError(f"{path}: its metadata is damaged ({said})") from None


def found_in(file: GGUFFile) -> Found:
    """The model in an open GGUF file."""
    m = file.metadata
    tokenizer = gguf_tokenizer(m)
    V = file.tensors["token_embd.weight"].shape[0] if "token_embd.weight" in file.tensors else 0
    config = config_from_gguf(m, max(V, 1))
    tied = "output.weight" not in file.tensors
    arch = m["general.architecture"]
    bias = "blk.0.attn_output.bias" in file.tensors
    config = replace(config, tie_weights=tied, bias=bias)
    if text := m.get("llm_tiny.config"):  # written by us: also what the format has no word for
        config = same_model(GPTConfig(**json.loads(text)), config)
    if FREQS in file.tensors:
        config = with_slower(config, torch.from_numpy(file.array(FREQS)))
    state = from_gguf(arch, {k: torch.from_numpy(a) for k, a in arrays(file)}, config)
    tokens = m["tokenizer.ggml.tokens"]

    def special(name: str) -> str | None:
        i = m.get(f"tokenizer.ggml.{name}_token_id")
        return tokens[i] if i is not None and tokens[i] in tokenizer.special_tokens else None

    chat, license = m.get("tokenizer.chat_template"), str(m.get("general.license", ""))
    origin = Pretrained(file.path.name, license, arch, special("bos"), special("eos"), chat)
    return Found(config, state, tokenizer, origin)


def same_model(ours: GPTConfig, said: GPTConfig) -> GPTConfig:
    """Our own metadata's config. ValueError if the format's metadata, and the tensors, differ."""
    names = ("vocab_size", "block_size", "n_layer", "n_head", "kv_heads", "d_model", "hidden")
    for name in (*names, "norm_eps", "pos", "norm", "mlp", "tie_weights", "bias"):
        one, other = getattr(ours, name), getattr(said, name)
        if one != other:
            raise ValueError(f"llm_tiny.config has {name}={one}, the other metadata {other}")
    return ours


def gguf_tokenizer(m: Mapping[str, Any]) -> BPETokenizer:
    """The tokenizer in a GGUF file's metadata. ValueError for another kind than byte-level BPE."""
    kind, pre = m.get("tokenizer.ggml.model"), m.get("tokenizer.ggml.pre")
    if pre is None and m.get("general.architecture") == "gpt2":  # older files
        pre = "gpt-2"
    if kind != "gpt2":
        what = "SentencePiece, say" if kind == "llama" else "which we lack"
        raise ValueError(f"its tokenizer is {kind!r} ({what}); only byte-level BPE can be read")
    pattern = m.get("llm_tiny.pattern") or PRE.get(str(pre))
    if pattern is None:
        known = ", ".join(PRE)
        raise ValueError(
            f"tokenizer.ggml.pre={pre!r} splits words in a way we lack; known: {known}"
        )
    tokens = list(m["tokenizer.ggml.tokens"])
    types = m.get("tokenizer.ggml.token_type", [1] * len(tokens))
    while tokens and types[len(tokens) - 1] == UNUSED:  # rows that fill the embedding up
        tokens.pop()
    specials = {t: i for i, t in enumerate(tokens) if types[i] in (CONTROL, USER)}
    merges = [tuple(line.split(" ")) for line in m["tokenizer.ggml.merges"]]
    if any(len(pair) != 2 for pair in merges):
        raise ValueError("a merge is not of two tokens")
    parts = made_by({t: i for i, t in enumerate(tokens)}, merges, specials, pattern)
    if pattern == "llama3":  # llama.cpp takes a whole word first where it is a token
        check_ignored_merges(parts)
    return BPETokenizer(*parts)


def content_sha256(source: str) -> str:
    """SHA-256 of all files that make up a source, wherever it lies, remembered by size and time."""
    if source == SMOLLM2:
        return SHA256
    path = Path(source)
    kinds = (".json", ".jinja", ".safetensors")
    inside = [file for file in path.iterdir() if file.suffix in kinds] if path.is_dir() else []
    sums = sorted(f"{file.name} {remembered(file, file_sha256)}" for file in inside)
    return sha256("\n".join(sums).encode()) if inside else remembered(path, file_sha256)


def read_source(source: str) -> Found:
    """Read a model from wherever it is. ValueError if there is none."""
    if source == SMOLLM2:
        file, origin = smollm2_file()
        found = from_gguf_file(file)
        return replace(found, origin=replace(found.origin, source=origin))
    path = Path(source)
    if path.is_dir():
        return from_directory(path)
    if path.is_file():
        return from_gguf_file(path)
    what = f"a directory, a .gguf file, or {SMOLLM2}"
    if len(path.parts) == 2 and not path.parent.is_dir():  # owner/name
        cure = f"download it first: hf download {source} --local-dir {path.name}"
        raise ValueError(f"{source} is neither {what}; nothing is fetched from a hub, so {cure}")
    raise ValueError(f"{source} is neither a run, {what}; nothing is there")
