"""A pretrained model becomes a run: from a Hugging Face directory, a GGUF file, or a package."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model import GPTConfig
from model.convert import config_from_hf, gpt2_from_hf, llama_from_hf
from model.convert.gguf import config_from_gguf, from_gguf
from tok import BPETokenizer, Tokenizer
from tok.bpe.interop import made_by
from tok.files import read_text
from tok.storage import fingerprint
from utils.config import Settings, flat, settings_from, write_yaml
from utils.hub.gguf import GGUFFile, arrays
from utils.hub.package import SMOLLM2, smollm2_file
from utils.hub.pretrained import NAME, Pretrained, read_pretrained, write_pretrained
from utils.hub.weights import read_weights
from utils.runs import new_run, run_dir
from utils.training.checkpoint import KEYS, rng_state
from utils.training.checkpoint import VERSION as CHECKPOINT
from utils.training.models import assembled, load_model, merged

PRE = {"gpt-2": "gpt2", "gpt2": "gpt2", "smollm": "gpt2_digits", "default": "gpt2"}
LONGEST = 1 << 20  # tokens: RoPE's tables take 8 bytes of each pair of a head
CONTROL, USER = 3, 4  # types of tokens in GGUF that are texts, and not merged
BASES = {"gpt2": gpt2_from_hf, "llama": llama_from_hf}


@dataclass(frozen=True)
class Found:
    """A model from elsewhere, in our names."""

    config: GPTConfig
    state: Mapping[str, Tensor]
    tokenizer: Tokenizer
    origin: Pretrained


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
    except (KeyError, TypeError) as e:
        raise ValueError(f"{path / 'config.json'} lacks {e}") from None
    except ValueError as e:
        raise ValueError(f"{path / 'config.json'}: {e}") from None
    kind = hf["model_type"]
    if not (path / "tokenizer.json").exists():
        raise ValueError(f"{path} has no tokenizer.json; save it with the tokenizer's fast kind")
    tokenizer = BPETokenizer.from_hf(path / "tokenizer.json")
    state = BASES[kind](read_weights(path))
    return Found(config, state, tokenizer, origin_of(path, kind, tokenizer))


def origin_of(path: Path, kind: str, tokenizer: BPETokenizer) -> Pretrained:
    """What a directory says of its special tokens, its template and its licence."""
    file, template = path / "tokenizer_config.json", path / "chat_template.jinja"
    known = read_json(file) if file.exists() else {}

    def special(key: str) -> str | None:
        token = known.get(key)
        token = token.get("content") if isinstance(token, dict) else token
        return token if token in tokenizer.special_tokens else None

    chat = read_text(template) if template.exists() else known.get("chat_template")
    chat = chat if isinstance(chat, str) else None
    license = card_license(path / "README.md")
    bos, eos = special("bos_token"), special("eos_token")
    return Pretrained(path.name, license, kind, bos, eos, chat)


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
    except (KeyError, TypeError, IndexError, AttributeError) as e:
        raise ValueError(f"{path}: its metadata is damaged ({type(e).__name__}: {e})") from None


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
        config = GPTConfig(**json.loads(text))
    state = from_gguf(arch, {k: torch.from_numpy(a) for k, a in arrays(file)}, config)
    tokens = m["tokenizer.ggml.tokens"]

    def special(name: str) -> str | None:
        i = m.get(f"tokenizer.ggml.{name}_token_id")
        return tokens[i] if i is not None and tokens[i] in tokenizer.special_tokens else None

    chat, license = m.get("tokenizer.chat_template"), str(m.get("general.license", ""))
    origin = Pretrained(file.path.name, license, arch, special("bos"), special("eos"), chat)
    return Found(config, state, tokenizer, origin)


def gguf_tokenizer(m: Mapping[str, Any]) -> BPETokenizer:
    """The tokenizer in a GGUF file's metadata. ValueError for another kind than byte-level BPE."""
    kind, pre = m.get("tokenizer.ggml.model"), m.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2":
        what = "SentencePiece, say" if kind == "llama" else "which we lack"
        raise ValueError(f"its tokenizer is {kind!r} ({what}); only byte-level BPE can be read")
    pattern = m.get("llm_tiny.pattern") or PRE.get(pre)
    if pattern is None:
        known = ", ".join(PRE)
        raise ValueError(
            f"tokenizer.ggml.pre={pre!r} splits words in a way we lack; known: {known}"
        )
    tokens = m["tokenizer.ggml.tokens"]
    types = m.get("tokenizer.ggml.token_type", [1] * len(tokens))
    specials = {t: i for i, t in enumerate(tokens) if types[i] in (CONTROL, USER)}
    merges = [tuple(line.split(" ")) for line in m["tokenizer.ggml.merges"]]
    if any(len(pair) != 2 for pair in merges):
        raise ValueError("a merge is not of two tokens")
    return BPETokenizer(*made_by({t: i for i, t in enumerate(tokens)}, merges, specials, pattern))


def check_size(config: GPTConfig, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError for a config that would build something far larger than its weights."""
    layers = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    shape = (config.vocab_size, config.d_model)
    if layers != config.n_layer or tuple(state["tok_emb.weight"].shape) != shape:
        found = f"{layers} layers, embeddings {tuple(state['tok_emb.weight'].shape)}"
        said = f"{config.n_layer} and {shape}"
        raise ValueError(f"the weights are not what the config says: {found}, not {said}")
    if config.block_size > LONGEST:
        raise ValueError(f"block_size={config.block_size} is more than {LONGEST:,}; lower it there")


def write_run(path: Path, found: Found) -> None:
    """Make a run of a model: config.yaml, tokenizer.json, best.pt, pretrained.json.

    Raises ValueError if the weights are not those of the config, or the tokenizer has more ids.
    """
    config, V = found.config, found.tokenizer.vocab_size
    check_size(config, found.state)
    if config.vocab_size < V:
        had = f"{config.vocab_size} embeddings"
        raise ValueError(f"the tokenizer has {V} tokens, the model {had}; they do not fit")
    try:
        model = assembled("gpt", config, found.state)
    except RuntimeError as e:
        raise ValueError(f"the weights are not what the config says ({one_line(e)})") from None
    shape = {k: v for k, v in asdict(config).items() if k != "vocab_size"}
    settings = settings_from({**shape, "run": path.name, "data": ""})
    parts = {"model": model.state_dict(), "base": None}
    write_checkpoint(path, settings, config, found.tokenizer, found.origin, parts)


def write_checkpoint(
    path: Path,
    settings: Settings,
    config: GPTConfig,
    tokenizer: Tokenizer,
    origin: Pretrained,
    parts: Mapping[str, Any],
) -> None:
    """Make a run that has not been trained here; `parts` are its model and its base."""
    train = replace(settings.data, tokenizer=str(path / "tokenizer.json"))
    settings = replace(settings, data=train)
    with new_run(path) as new:
        tokenizer.save(new / "tokenizer.json")
        write_yaml(settings, new / "config.yaml")
        write_pretrained(new, origin)
        data = {"name": origin.source, "text_sha256": ""}
        checkpoint: dict[str, Any] = dict.fromkeys(KEYS, 0) | {
            "version": CHECKPOINT,
            "kind": "gpt",
            "model_config": asdict(config),
            "settings": flat(settings),
            "data": {**data, "tokenizer_sha256": fingerprint(new / "tokenizer.json")},
            "rng": rng_state(),
            "log": {},
            "best_val_loss": float("inf"),
            "optimizer": {},
            "scaler": {},
            **parts,
        }
        try:
            torch.save(checkpoint, new / "best.pt")
        except RuntimeError as e:  # torch's word for a disk that is full
            raise OSError(f"cannot write {path}; is the disk full? ({str(e)[:60]})") from None


def one_line(e: Exception) -> str:
    """The first lines of torch's complaint as one."""
    return " ".join(str(e).split())[:200]


def has_model(run: Path) -> bool:
    """Whether a directory is a run of ours."""
    return (run / "best.pt").exists() or (run / "last.pt").exists()


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
    raise ValueError(f"{source} is neither a run, {what}; nothing is there")


def import_source(
    source: str, run: str | None, base: str | None = None, merge: bool = False
) -> Path:
    """Make a run of a pretrained model, say where it came from, and give the run's directory."""
    path = run_dir(run or Path(source).name.removesuffix(".gguf"))
    if merge and has_model(run_dir(source)):
        return import_merged(run_dir(source), path)
    if merge:
        raise ValueError(f"--merge adds adapters to weights; {source} has none")
    found = read_source(source)
    write_run(path, found)
    report(path, found)
    return path


def import_merged(source: Path, path: Path) -> Path:
    """Make a run of a run with adapters, added to its weights."""
    if source.resolve() == path.resolve():
        raise ValueError(f"--run must name another run than {source}, which has the adapters")
    model, tokenizer, checkpoint = load_model(source)
    if not checkpoint.get("base"):
        raise ValueError(f"{source} has no adapters to merge")
    origin = read_pretrained(source) or Pretrained(str(source))
    config = model.config
    found = Found(config, merged(model).state_dict(), tokenizer, origin)
    write_run(path, found)
    report(path, found)
    return path


def report(path: Path, found: Found) -> None:
    """Say what has become a run."""
    o, c = found.origin, found.config
    n = sum({t.data_ptr(): t.numel() for t in found.state.values()}.values())
    print(f"source  {o.source}" + (f", licence {o.license}" if o.license else ""))
    print(f"model   {n:,} parameters, {c.n_layer} blocks of {c.d_model}, {c.block_size:,} tokens")
    print(
        f"run     {path}; next: python sample.py --run {path}" + " --chat" * bool(o.chat_template)
    )


def as_run(source: str) -> str:
    """The run that `train.py --init SOURCE` starts from; a model from elsewhere is imported first.

    It becomes the run of its own name, unless that is there already and came from the same source.
    """
    if has_model(run_dir(source)):
        return source
    path = run_dir(Path(source).name.removesuffix(".gguf"))
    if has_model(path):
        if not (path / NAME).exists():
            raise ValueError(
                f"{path} is another run; import {source} under a name: utils.hub import"
            )
        return path.name
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # of torchrun, each would import it
        raise ValueError(f"{source} is no run yet; first: python -m utils.hub import {source}")
    import_source(source, path.name)
    return path.name
