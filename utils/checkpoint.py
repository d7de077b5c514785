"""Checkpoints: all that a run needs to go on to the bit, in a file that is whole or not there."""

import itertools
import math
import os
import pickle
import shutil
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

import tok
from data.prepare import sha256
from model import GPTConfig, TinyGPT
from tok.files import beside
from utils.config import Settings, write_yaml
from utils.ranks import ALONE, Ranks, sliced, whole

VERSION = 1
PARTS = ("model", "optimizer", "scaler")
WHERE = ("step", "best_val_loss", "best_step")
KEYS = ("version", "model_config", "settings", "data", "rng", "log", *WHERE, *PARTS)


def atomic(path, write) -> None:
    """Call write(temporary), then put the temporary in the place of path: never half a file."""
    with beside(path) as part:
        write(part)
        os.replace(part, path)


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


def load_checkpoint(path) -> dict[str, Any]:
    """Read a checkpoint to the CPU. ValueError if it is missing, cut short, foreign or too new."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no checkpoint {path}; train one with train.py --run {path.parent.name}")
    with open(path, "rb") as f:  # an OSError of its own; one from torch is about what it holds
        try:
            checkpoint = torch.load(f, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as e:
            why = str(e).strip().split("\n")[0][:60]
            raise ValueError(f"{path} is not a whole checkpoint ({why}); retrain") from None
    missing = [key for key in KEYS if not isinstance(checkpoint, dict) or key not in checkpoint]
    if missing:
        raise ValueError(f"{path} is not a checkpoint of llm-tiny: it has no {missing[0]!r}")
    if checkpoint["version"] != VERSION:
        raise ValueError(
            f"{path} has version {checkpoint['version']}, this program reads {VERSION}"
        )
    return checkpoint


@contextmanager
def fitting(what: str):
    """Say in one line that a model of another program, or half of one, does not fit here."""
    try:
        yield
    except (TypeError, RuntimeError) as e:
        why = " ".join(str(e).split())[:120]
        raise ValueError(f"{what} does not fit this program ({why}); retrain") from None


def load_model(run: Path, which: str = "best") -> tuple[TinyGPT, Any, dict[str, Any]]:
    """Load a run's best.pt or last.pt: (model on the CPU, tokenizer, the whole checkpoint)."""
    if not run.is_dir():
        raise ValueError(f"no run {run}; train it: python train.py --run {run.name}")
    checkpoint, file = load_checkpoint(run / f"{which}.pt"), run / "tokenizer.json"
    with fitting(f"{run}/{which}.pt"):
        model = TinyGPT(GPTConfig(**checkpoint["model_config"]))
        model.load_state_dict(checkpoint["model"])  # strict
    if not file.exists():
        raise ValueError(f"{run} has no tokenizer.json; copy that of its data there")
    if sha256(file.read_bytes()) != checkpoint["data"]["tokenizer_sha256"]:
        raise ValueError(f"{file} is not the one that the model learnt with; bring that back")
    return model, tok.load(file), checkpoint


def same_data(then: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ValueError if text or tokenizer, by their meta.json, are not those of the run."""
    for key in ("text_sha256", "tokenizer_sha256"):
        if then[key] != now[key]:
            what, name = key.removesuffix("_sha256"), then["name"] or "the data"
            raise ValueError(f"the {what} of {name} has changed since the run; bring it back")


def keep_newest(path: Path, step: int, n: int) -> None:
    """Copy a checkpoint to stepN.pt beside it, and delete all such copies but the n newest."""
    atomic(path.with_name(f"step{step}.pt"), lambda part: shutil.copyfile(path, part))
    copies = [p for p in path.parent.glob("step*.pt") if p.stem[4:].isdigit()]
    for old in sorted(copies, key=lambda p: int(p.stem[4:]))[:-n]:
        old.unlink()


@dataclass
class TrainState:
    """All that changes in a run. Batches are a pure function of the step and need no saving."""

    model: TinyGPT  # the plain one, never compiled or wrapped
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    settings: dict[str, Any]
    data: dict[str, Any]  # meta.json of the text
    step: int = 0
    best_val_loss: float = math.inf
    best_step: int = 0
    ranks: Ranks = ALONE

    def save(self, path: Path, log: dict[str, Any], keep: int = 0) -> None:
        """Write everything, and the log's own state, to path. All ranks call it, rank 0 writes.

        Slices are put together, so any number of ranks reads what any other wrote. With `keep`
        there is a copy beside it, stepN.pt, and as many older ones as make up that number.
        """
        parts = {name: whole(getattr(self, name).state_dict()) for name in PARTS}
        apart = (*PARTS, "ranks")
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in apart}
        config = asdict(self.model.config)
        checkpoint = {
            "version": VERSION,
            "model_config": config,
            "rng": self.ranks.every(rng_state()),
            "log": log,
            **parts,
            **values,
        }
        if not self.ranks.first:
            return
        try:
            atomic(path, lambda part: torch.save(checkpoint, part))
        except RuntimeError as e:  # torch's word for a disk that is full
            raise OSError(f"cannot write {path}; is the disk full? ({str(e)[:60]})") from None
        if keep:
            keep_newest(path, self.step, keep)

    def note(self, val_loss: float) -> bool:
        """Take down the loss of an evaluation, in nats; whether it is strictly the best so far.

        Raises FloatingPointError if it is not finite.
        """
        if not math.isfinite(val_loss):
            raise FloatingPointError(f"validation loss {val_loss}")
        best = val_loss < self.best_val_loss
        if best:
            self.best_val_loss, self.best_step = val_loss, self.step
        return best

    def load(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Become what the checkpoint holds, and give the log's state in it.

        Raises ValueError if it is of another model or text.
        """
        with fitting("the checkpoint"):
            old = asdict(GPTConfig(**checkpoint["model_config"]))  # not named: as before
        new = asdict(self.model.config)
        differ = [f"{k} {old[k]} there, {v} here" for k, v in new.items() if old[k] != v]
        if differ:
            raise ValueError(f"the checkpoint is of another model: {', '.join(differ)}")
        same_data(checkpoint["data"], self.data)
        then = checkpoint["settings"].get("optimizer", "adamw")  # there was no other in 0.1.0
        if then != self.settings["optimizer"]:
            cure = f"resume with --optimizer {then}"
            raise ValueError(f"the checkpoint holds the state of optimizer={then}; {cure}")
        own = ("betas", "momentum", "weight_decay")
        asked = [{k: g[k] for k in own if k in g} for g in self.optimizer.param_groups]
        now, kept = self.model.state_dict(), checkpoint["model"]
        with fitting("the checkpoint"):
            weights = {name: sliced(value, now.get(name, value)) for name, value in kept.items()}
            self.model.load_state_dict(weights)
        self.optimizer.load_state_dict(self.slices(checkpoint["optimizer"]))
        for group, values in zip(self.optimizer.param_groups, asked, strict=True):
            group.update(values)  # a resumed run may change these: its settings win
        if checkpoint["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(checkpoint["scaler"])
        drawn = checkpoint["rng"]
        drawn = drawn if isinstance(drawn, list) else [drawn]  # one alone, in older files
        if self.ranks.rank < len(drawn):  # a rank more than then goes on from its own seed
            set_rng_state(drawn[self.ranks.rank])
        for name in WHERE:
            setattr(self, name, checkpoint[name])
        return checkpoint["log"]

    def slices(self, state: dict[str, Any]) -> dict[str, Any]:
        """An optimizer's whole state dict, with this rank's slices of what it keeps."""
        params = [p for group in self.optimizer.param_groups for p in group["params"]]
        kept = {
            i: {name: sliced(value, params[i]) for name, value in values.items()}
            for i, values in state["state"].items()
        }
        return {**state, "state": kept}


def latest_run(root="runs") -> Path:
    """Find the run whose checkpoint is newest. Raises ValueError if no run has one."""
    found = [p for name in ("best.pt", "last.pt") for p in Path(root).glob(f"*/{name}")]
    found = [p for p in found if not p.parent.name.endswith("-overfit")]
    if not found:
        raise ValueError(f"no run with a checkpoint under {root}/; train one: python train.py")
    return max(found, key=lambda p: p.stat().st_mtime).parent


def in_use(path: Path) -> bool:
    """Whether a training that is under way holds this metrics.csv."""
    if not path.exists():
        return False
    with open(path, "a", encoding="utf-8") as file:
        return not hold(file)


def hold(file) -> bool:
    """Lock an open file for this process, as long as it is open; False if another one has."""
    if sys.platform == "win32":  # where two trainings of one name go unnoticed
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def open_run(path: Path, settings: Settings, tokenizer_file, *, resume: bool) -> None:
    """Make a run's directory, with config.yaml and tokenizer.json. An older run steps aside.

    Raises ValueError if something else than a run is there.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; --run names a directory")
    made = ("config.yaml", "tokenizer.json")
    if path.is_dir() and any(path.iterdir()) and not all((path / m).exists() for m in made):
        raise ValueError(f"{path} holds other files; choose another --run")
    if in_use(path / "metrics.csv"):
        raise ValueError(f"{path} is being trained by another process; choose another --run")
    if resume:
        for torn in path.glob("*.tmp"):  # by a process that was killed while it wrote
            torn.unlink()
        atomic(path / "config.yaml", lambda part: write_yaml(settings, part))
        return
    new = path.with_name(
        f".{path.name}.{os.getpid()}.tmp"
    )  # a killed start leaves no half of a run
    new.mkdir(parents=True, exist_ok=True)
    write_yaml(settings, new / "config.yaml")
    shutil.copyfile(tokenizer_file, new / "tokenizer.json")
    if path.exists():
        n = next(n for n in itertools.count(1) if not path.with_name(f"{path.name}-{n}").exists())
        os.replace(path, path.with_name(f"{path.name}-{n}"))
    os.replace(new, path)
