"""What a run has left behind, read once: settings, curves, times, text, model. Judges nothing."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

import tok
from data.mixture import open_mixture
from data.store import TokenDataset
from model import TinyGPT
from tok.cli import one_line
from utils.config import Settings, read_yaml, recorded_settings
from utils.device import Device, pick_device
from utils.plot import Points, points, read_rows
from utils.tasks.table import task_of
from utils.training.baselines import bigram_baseline
from utils.training.checkpoint import same_data
from utils.training.models import load_model

Severity = Literal["serious", "warning", "note"]
MOST = 20_000_000  # tokens of a long text that are counted


@dataclass(frozen=True)
class Finding:
    """Something that looks wrong: how bad, what, the figures that were seen, what to try."""

    severity: Severity
    title: str
    seen: str
    cure: str

    def __str__(self) -> str:
        return f"{self.severity:8} {self.title}\n{'seen':>8} {self.seen}\n{'try':>8} {self.cure}"


@dataclass(frozen=True)
class Record:
    """A run as its files tell it. What is not there is empty, and `missing` says why."""

    path: Path
    settings: Settings
    summary: dict[str, Any]  # {} of a run that was interrupted
    curves: dict[str, Points]  # of metrics.csv: train_loss, val_loss, lr, grad_norm
    spikes: int
    seconds_in: dict[str, float]
    meta: dict[str, Any]  # meta.json of the text; {} if nothing is known of it
    model: TinyGPT | None  # newest checkpoint's
    vocab_size: int
    data: TokenDataset | None = None
    bigram: float = math.nan  # nats a token of frequencies of pairs, or a BERT's best baseline
    missing: list[str] = field(default_factory=list)

    @property
    def device(self) -> Device:
        """Where the run was trained, as far as this machine has it."""
        s = self.settings.train
        try:
            return pick_device(s.device, s.dtype)
        except ValueError:
            return pick_device("cpu", "float32")

    @property
    def steps(self) -> int:
        """Steps that were taken."""
        return max([step for curve in self.curves.values() for step, _ in curve], default=0)

    @property
    def uniform(self) -> float:
        """Nats a token of knowing nothing: ln V, where an untrained model starts; or ln classes."""
        classes = self.settings.objective.objective == "classify"
        return math.log(len(self.meta["sources"]) if classes else self.vocab_size)

    @property
    def fresh(self) -> bool:
        """Whether it began from random weights."""
        return not self.settings.train.init


def binned(curve: Points, n: int = 20) -> list[float]:
    """A curve's values as n means at most: 4 values, n=2 -> [mean of 1 and 2, mean of 3 and 4]."""
    values = [value for _, value in curve]
    n = min(n, len(values))
    return [float(np.mean(part)) for part in np.array_split(values, n)] if n else []


def open_text(settings: Settings, meta: dict[str, Any]) -> tuple[TokenDataset, float]:
    """The run's own text, and the loss of the best baseline on it.

    ValueError or OSError if it is gone, or is another now.
    """
    mixture = open_mixture(**settings.text)
    data = mixture.combined(load=True)
    if meta:
        same_data(meta, data.meta)
    if settings.objective.kind != "gpt":
        baselines = task_of(settings, mixture).baselines(settings.model.block_size)
        return data, next(iter(baselines.values()))["val_loss"]
    V, n_bytes = data.tokenizer.vocab_size, data.meta["val_bytes"]
    return data, bigram_baseline(data.train[:MOST], data.val, V, n_bytes).loss


def read(path: Path) -> Record:
    """Read a run. ValueError if it has no metrics.csv."""
    rows = read_rows(path / "metrics.csv", "the doctor looks at runs that were trained here")
    file = path / "summary.json"
    summary = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    columns = "train_loss", "val_loss", "lr", "grad_norm"
    values: dict[str, Any] = {"path": path, "summary": summary, "missing": [], "model": None}
    values["curves"] = {column: points(rows, column) for column in columns}
    values["spikes"] = sum(int(n) for _, n in points(rows, "spikes"))
    checkpoint: dict[str, Any] = {"settings": read_yaml(path / "config.yaml"), "log": {}}
    if which := [name for name in ("last", "best") if (path / f"{name}.pt").exists()]:
        values["model"], _, checkpoint = load_model(path, which[0], kind="")
    else:
        values["missing"].append("layers: there is no checkpoint")
    values["seconds_in"] = summary.get("seconds_in") or checkpoint["log"].get("parts", {})
    settings = values["settings"] = recorded_settings(checkpoint["settings"], path)
    meta = values["meta"] = checkpoint.get("data") or summary.get("data", {})
    values["vocab_size"] = tok.load(path / "tokenizer.json").vocab_size
    if settings.objective.kind != "gpt":
        values["missing"].append("layers: the doctor looks into GPTs only")
    try:
        data, bigram = open_text(settings, meta)
    except (ValueError, OSError) as e:
        values["missing"].append(f"the text: {one_line(e)}")
        return Record(**values)
    return Record(**{**values, "meta": data.meta}, data=data, bigram=bigram)
