"""Checkpoints: all that a run needs to go on to the bit, in a file that is whole or not there."""

import math
import pickle
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from model import MODELS, GPTConfig, TinyGPT
from model.adapt.lora import load_lora, lora_state
from tok.cli import one_line
from tok.files import replacing
from utils.config import resolved
from utils.distributed import SINGLE, Distributed, full_state, load_full_state
from utils.training.optim import AnyOptimizer

VERSION = 1
PARTS = ("model", "optimizer", "scaler")
PROGRESS = ("step", "best_val_loss", "best_step")
KEYS = ("version", "model_config", "settings", "data", "rng", "log", *PROGRESS, *PARTS)
DAMAGE = (  # what zipfile and torch.load raise for a damaged archive
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
)


def rng_state() -> dict[str, Any]:
    """State of torch's generators, which dropout draws from."""
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all(), "mps": mps}


def set_rng_state(state: dict[str, Any]) -> None:
    """Undo `rng_state`."""
    torch.set_rng_state(state["cpu"].cpu())
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
    if state["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


def load_checkpoint(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint to the CPU. ValueError if it is missing, damaged, foreign or too new.

    With mmap, tensors are read from the file when they are used.
    """
    if not path.is_file():
        raise ValueError(f"no checkpoint {path}; train one with train.py --run {path.parent.name}")
    open(path, "rb").close()  # an OSError of its own; a later one is about what the file holds
    try:
        check_archive(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except DAMAGE as e:
        why = str(e).strip().split("\n")[0][:60]
        raise ValueError(f"{path} is not a whole checkpoint ({why}); retrain") from None
    missing = [key for key in KEYS if not isinstance(checkpoint, dict) or key not in checkpoint]
    if missing:
        raise ValueError(f"{path} is not a checkpoint of llm-tiny: it has no {missing[0]!r}")
    if checkpoint["version"] != VERSION:
        version = checkpoint["version"]
        raise ValueError(f"{path} has version {version}, this program reads {VERSION}")
    return checkpoint


def check_archive(path: Path) -> None:
    """Raise BadZipFile if a record has not its CRC32, which torch.load does not look at.

    Nor does it read anything of a record that one flipped bit has made a folder.
    """
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
        if broken or any(record.external_attr for record in archive.infolist()):
            raise zipfile.BadZipFile(f"{broken or 'its table'} has changed")


@contextmanager
def fitting(what: str) -> Iterator[None]:
    """Say in one line that a model of another program, or half of one, does not fit here."""
    try:
        yield
    except (TypeError, RuntimeError, KeyError) as e:
        why = one_line(e, 120)
        raise ValueError(f"{what} does not fit this program ({why}); retrain") from None


def model_config(checkpoint: dict[str, Any]) -> GPTConfig:
    """The config of a checkpoint's model; up to 0.2.0 `dropout` was of attention weights, too."""
    values = checkpoint["model_config"]
    config, _ = MODELS[checkpoint.get("kind", "gpt")]  # not named before 0.2.0
    return config(**{"attn_dropout": values.get("dropout", 0.0), **values})


def same_model(checkpoint: dict[str, Any], config: GPTConfig) -> None:
    """Raise ValueError if a checkpoint's model is of another config; equal shapes are equal."""
    with fitting("the checkpoint"):
        old, new = resolved(model_config(checkpoint)), resolved(config)
    differ = [f"{k} {old[k]} there, {v} here" for k, v in new.items() if old[k] != v]
    if differ:
        raise ValueError(f"the checkpoint is of another model: {', '.join(differ)}")


def same_data(then: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ValueError if text or tokenizer, by their meta.json, are not those of the run."""
    for key in ("text_sha256", "tokenizer_sha256"):
        if then[key] != now[key]:
            what, name = key.removesuffix("_sha256"), then["name"] or "the data"
            raise ValueError(f"the {what} of {name} has changed since the run; bring it back")


def keep_newest(path: Path, step: int, n: int) -> None:
    """Copy a checkpoint to stepN.pt beside it, and delete all such copies but the n newest."""
    with replacing(path.with_name(f"step{step}.pt")) as part:
        shutil.copyfile(path, part)
    copies = [p for p in path.parent.glob("step*.pt") if p.stem[4:].isdigit()]
    for old in sorted(copies, key=lambda p: int(p.stem[4:]))[:-n]:
        old.unlink()


@dataclass
class TrainState:
    """All that changes in a run. Batches are a pure function of the step and need no saving."""

    model: TinyGPT  # the plain one, never compiled or wrapped
    optimizer: AnyOptimizer
    scaler: torch.amp.GradScaler
    settings: dict[str, Any]
    data: dict[str, Any]  # meta.json of the text
    source: dict[str, str] | None = None  # the run it started from (`utils.training.models`)
    teacher: dict[str, str] | None = None  # the run it learns from, whose weights are not kept
    step: int = 0
    best_val_loss: float = math.inf
    best_step: int = 0

    def note(self, val_loss: float) -> bool:  # exercise: best-checkpoint
        """Keep the loss of an evaluation, in nats, if it is the best; whether it is, strictly.

        Raises FloatingPointError if it is not finite.
        """
        if not math.isfinite(val_loss):
            raise FloatingPointError(f"validation loss {val_loss}")
        best = val_loss < self.best_val_loss
        if best:
            self.best_val_loss, self.best_step = val_loss, self.step
        return best

    def save(self, path: Path, log: dict[str, Any], dist: Distributed = SINGLE) -> None:
        """Write everything, and the log's state, to path. All ranks call it, the main one writes.

        Shards are put together there, so any number of ranks reads what any other wrote.
        """
        rng = dist.gather_objects(rng_state())
        model, optimizer = full_state(self.model, self.optimizer)
        if not dist.is_main:
            return
        checkpoint = {
            "version": VERSION,
            "kind": next(kind for kind, (_, cls) in MODELS.items() if isinstance(self.model, cls)),
            "model_config": asdict(self.model.config),
            "settings": self.settings,
            "data": self.data,
            "rng": rng,
            "log": log,
            "model": lora_state(self.model) or model,
            "base": self.source if lora_state(self.model) else None,
            "source": self.source,
            "teacher": self.teacher,
            "optimizer": optimizer,
            "scaler": self.scaler.state_dict(),
            **{name: getattr(self, name) for name in PROGRESS},
        }
        try:
            with replacing(path) as part:
                torch.save(checkpoint, part)
        except RuntimeError as e:  # torch's word for a disk that is full
            raise OSError(f"cannot write {path}; is the disk full? ({str(e)[:60]})") from None

    def load(self, checkpoint: dict[str, Any], dist: Distributed = SINGLE) -> dict[str, Any]:
        """Become what the checkpoint holds, and give the log's state in it.

        Raises ValueError if it is of another model or text.
        """  # exercise: resume
        self.check(checkpoint)
        own = ("betas", "momentum", "weight_decay")
        asked = [{k: g[k] for k in own if k in g} for g in self.optimizer.param_groups]
        with fitting("the checkpoint"):
            parts = checkpoint["model"], checkpoint["optimizer"]
            if lora_state(self.model):
                load_lora(self.model, parts[0])
                parts = self.model.state_dict(), parts[1]
            load_full_state(self.model, self.optimizer, *parts)
        for group, values in zip(self.optimizer.param_groups, asked, strict=True):
            group.update(values)  # a resumed run may change these: its settings win
        if checkpoint["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(checkpoint["scaler"])
        rng = checkpoint["rng"]
        rng = rng if isinstance(rng, list) else [rng]  # one alone, in older files
        if dist.rank < len(rng):  # a rank more than then goes on from its own seed
            set_rng_state(rng[dist.rank])
        for name in PROGRESS:
            setattr(self, name, checkpoint[name])
        return checkpoint["log"]

    def check(self, checkpoint: dict[str, Any]) -> None:
        """Raise ValueError for a checkpoint of another model, text or optimizer."""
        same_model(checkpoint, self.model.config)
        same_data(checkpoint["data"], self.data)
        then = checkpoint["settings"].get("optimizer", "adamw")  # there was no other in 0.1.0
        if then != self.settings["optimizer"]:
            cure = f"resume with --optimizer {then}"
            raise ValueError(f"the checkpoint holds the state of optimizer={then}; {cure}")
