"""A model from elsewhere becomes a run, whole or not at all."""

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model import GPTConfig, TinyGPT
from tok import Tokenizer
from tok.storage import fingerprint
from utils.config import Settings, flat, settings_from, write_yaml
from utils.hub.pretrained import Pretrained, read_pretrained, write_pretrained
from utils.hub.sources import Found, read_source
from utils.runs import new_run, run_dir
from utils.training.checkpoint import KEYS, rng_state
from utils.training.checkpoint import VERSION as CHECKPOINT
from utils.training.models import assembled, load_model, merged

LONGEST = 1 << 17  # tokens, as LLaMA 3.1: RoPE's tables take 8 bytes of each pair of a head


def check_size(config: GPTConfig, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError for a config that would build something far larger than its weights."""
    layers = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    shape = (config.vocab_size, config.d_model)
    if layers != config.n_layer or tuple(state["tok_emb.weight"].shape) != shape:
        found = f"{layers} layers, embeddings {tuple(state['tok_emb.weight'].shape)}"
        said = f"{config.n_layer} and {shape}"
        raise ValueError(f"the weights are not what the config says: {found}, not {said}")
    if config.block_size > LONGEST:
        cure = "lower max_position_embeddings in its config.json"
        raise ValueError(
            f"a context of {config.block_size} tokens is more than {LONGEST:,}; {cure}"
        )


def fitted(found: Found) -> TinyGPT:
    """The model. ValueError if its weights are not those of its config, or its tokens too many."""
    check_size(found.config, found.state)
    V, rows = found.tokenizer.vocab_size, found.config.vocab_size
    if rows < V:
        raise ValueError(
            f"the tokenizer has {V} tokens, the model {rows} embeddings; they do not fit"
        )
    return assembled("gpt", found.config, found.state)


def write_run(path: Path, found: Found) -> None:
    """Make a run of a model: config.yaml, tokenizer.json, best.pt, pretrained.json.

    Raises ValueError if the weights are not those of the config, or the tokenizer has more ids.
    """
    config = found.config
    try:
        model = fitted(found)
    except ValueError as e:
        raise ValueError(f"{found.origin.source}: {e}") from None
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
    base = checkpoint.get("base")
    if not base:
        raise ValueError(f"{source} has no adapters to merge")
    if path.name == Path(base["run"]).name:
        raise ValueError(f"--run must name another run than {path}, which the adapters need")
    origin = read_pretrained(source) or Pretrained(source.name)
    config = model.config
    found = Found(config, merged(model).state_dict(), tokenizer, origin)
    write_run(path, found)
    report(path, found)
    return path


def report(path: Path, found: Found) -> None:
    """Say what has become a run."""
    o, c = found.origin, found.config
    for note in found.notes:
        print(f"note    {note}")
    n = sum({t.data_ptr(): t.numel() for t in found.state.values()}.values())
    print(f"source  {o.source}" + (f", licence {o.license}" if o.license else ""))
    print(f"model   {n:,} parameters, {c.n_layer} blocks of {c.d_model}, {c.block_size:,} tokens")
    way = " --chat" * bool(o.chat_template)
    print(f"run     {path}; next: python sample.py --run {quote(str(path))}{way}")


def as_run(source: str) -> str:
    """The run that `train.py --init SOURCE` starts from; a model from elsewhere is imported first.

    It becomes the run of its own name, unless that is there already and came from the same source.
    """
    if has_model(run_dir(source)):
        return source
    path = run_dir(Path(source).name.removesuffix(".gguf"))
    if has_model(path):
        origin = read_pretrained(path)
        if origin is None or origin.source != Path(source).name:
            raise ValueError(
                f"{path} is another run; import {source} under a name: utils.hub import"
            )
        return path.name
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # of torchrun, each would import it
        raise ValueError(f"{source} is no run yet; first: python -m utils.hub import {source}")
    import_source(source, path.name)
    return path.name
