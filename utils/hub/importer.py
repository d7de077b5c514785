"""A model from elsewhere becomes a run, whole or not at all."""

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from torch import Tensor

from model import BertConfig, GPTConfig, TinyGPT
from tok import Tokenizer
from tok.cli import one_line
from tok.storage import fingerprint
from utils.config import (
    Settings,
    flat,
    read_yaml,
    recorded_settings,
    settings_from,
    write_yaml,
)
from utils.hub.pretrained import (
    Pretrained,
    imported_name,
    is_run,
    read_pretrained,
    write_pretrained,
)
from utils.hub.sources import Found, content_sha256, read_source
from utils.runs import RUNS, has_model, new_run, run_dir
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
    return assembled(kind_of(found.config), found.config, found.state)


def kind_of(config: GPTConfig) -> str:
    """Its kind among `model.MODELS`."""
    return "bert" if isinstance(config, BertConfig) else "gpt"


def settings_of(config: GPTConfig) -> dict[str, Any]:
    """A config as settings of a run: the objective decides what is built of them."""
    values = {k: v for k, v in asdict(config).items() if k != "vocab_size"}
    if not isinstance(config, BertConfig):
        return values
    objective = "classify" if values.pop("classes") else "masked"
    del values["token_types"]  # no setting: all of ours have two
    return values | {"objective": objective}


def write_run(path: Path, found: Found) -> None:
    """Make a run of a model: config.yaml, tokenizer.json, best.pt, pretrained.json.

    Raises ValueError if the weights are not those of the config, or the tokenizer has more ids.
    """
    config = found.config
    try:
        model = fitted(found)
    except ValueError as e:
        raise ValueError(f"{found.origin.source}: {e}") from None
    except RuntimeError as e:
        why = f"the weights are not what the config says ({one_line(e)})"
        raise ValueError(f"{found.origin.source}: {why}") from None
    shape = settings_of(config)
    settings = settings_from(
        {**shape, "run": path.name, "data": "", "vocab": found.tokenizer.vocab_size}
    )
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
            "kind": kind_of(config),
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


def import_source(
    source: str, run: str | None, base: str | None = None, merge: bool = False
) -> Path:
    """Make a run of a pretrained model, say where it came from, and give the run's directory."""
    path = run_dir(run or imported_name(source))
    if merge and has_model(run_dir(source)):
        return import_merged(run_dir(source), path)
    if merge:
        raise ValueError(f"--merge adds adapters to weights; {source} has none")
    if is_run(source):
        raise ValueError(f"{run_dir(source)} is a run already; sample.py --run {source}")
    report(path, imported(source, path))
    return path


def imported(source: str, path: Path) -> Found:
    """Make the run `path` of what `source` holds, and note the sum of that."""
    found = read_source(source)
    found = replace(found, origin=replace(found.origin, sha256=content_sha256(source)))
    write_run(path, found)
    return found


def import_merged(source: Path, path: Path) -> Path:
    """Make a run of a run with adapters, added to its weights."""
    if source.resolve() == path.resolve():
        raise ValueError(f"--run must name another run than {source}, which has the adapters")
    model, tokenizer, checkpoint = load_model(source, kind="")
    base = checkpoint.get("base")
    if not base:
        raise ValueError(f"{source} has no adapters to merge")
    if path.name == Path(base["run"]).name:
        raise ValueError(f"--run must name another run than {path}, which the adapters need")
    origin = read_pretrained(source) or Pretrained(source.name)
    found = Found(model.config, merged(model).state_dict(), tokenizer, replace(origin, sha256=""))
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
    if isinstance(c, BertConfig):
        way = ' --fill "The [MASK] ran home"'
    print(f"run     {path}; next: python sample.py --run {quote(str(path))}{way}")


def came_from(run: Path, source: str) -> bool:
    """Whether a run is an import of what the source holds now, and has not been trained since."""
    origin = read_pretrained(run)
    if origin is None or recorded_settings(read_yaml(run / "config.yaml")).train.init:
        return False
    return origin.sha256 == content_sha256(source)


def as_run(source: str, runs: Path = RUNS) -> str:
    """The run that `--init SOURCE` starts from; what is no run becomes one in `runs` first.

    It gets its own name, or is there already: then it has to be an import of the same content.
    """
    if is_run(source):
        return source
    name = imported_name(source)
    if has_model(run_dir(name)):
        if not came_from(run_dir(name), source):
            cure = f"--init {run_dir(name)} takes that; or import {source} by another name"
            raise ValueError(f"{run_dir(name)} is another run than {source}; {cure}")
        return name
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # of torchrun, each would import it
        raise ValueError(f"{source} is no run yet; first: python -m utils.hub import {source}")
    if runs == RUNS:
        import_source(source, name)
        return name
    imported(source, runs / name)  # for a while only: nothing to report
    return str(runs / name)
