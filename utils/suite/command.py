"""eval.py --suite and --by-position: what is measured of a run, printed, kept in its directory."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.store import TokenDataset, end_id
from model import TinyGPT
from utils.device import Device
from utils.reporting.summary import write_json
from utils.suite.curve import kept, models, validation_losses
from utils.suite.picture import draw_curve, draw_positions
from utils.suite.position import by_doubling, by_position, context_used, overall, token_losses
from utils.suite.report import as_json, spans_table, tables, write_spans, write_steps
from utils.suite.rows import Row
from utils.suite.suite import Subject, Suite
from utils.tasks.table import Task
from utils.training.baselines import bigram_baseline
from utils.training.checkpoint import model_config
from utils.training.models import load_model

OpenTask = Callable[[Namespace, Path, dict[str, Any]], Task]


def check_kind(path: Path, checkpoint: dict[str, Any]) -> None:
    """Raise ValueError for a model that reads both ways: it has no next token."""
    if checkpoint.get("kind", "gpt") == "bert":
        raise ValueError(f"{path} is a BERT, which writes no text; name a run of a GPT")


def subject(a: Namespace, path: Path, which: str, open_task: OpenTask) -> Subject:
    """What is known of a run beside its weights. A pretrained model's text is not."""
    _, tokenizer, checkpoint = load_model(path, which)
    check_kind(path, checkpoint)
    texts: list[TokenDataset] = []
    if a.data or "train_tokens" in checkpoint["data"]:
        texts = list(open_task(a, path, checkpoint).mixture.datasets.values())
    end = end_id(checkpoint["data"], tokenizer)
    return Subject(model_config(checkpoint), tokenizer, end, texts)


def run_suite(a: Namespace, path: Path, device: Device, open_task: OpenTask) -> None:
    """Measure a checkpoint, or with --curve each that was kept."""
    if a.curve:
        run_curve(a, path, device, open_task)
        return
    suite = Suite(subject(a, path, a.ckpt, open_task), a.num, a.shots, a.seed, device)
    model, _, checkpoint = load_model(path, a.ckpt)
    rows = [*suite.measure(model.to(device.device)), *suite.bounds()]
    print(f"{path}/{a.ckpt}.pt, step {checkpoint['step']}, seed {a.seed}\n")
    print(tables(rows, suite.notes))
    origin = {"checkpoint": a.ckpt, "step": checkpoint["step"]}
    asked = {"num": a.num, "shots": a.shots, "seed": a.seed, "notes": suite.notes}
    write_json(path / "suite.json", {**origin, **asked, "figures": as_json(rows)})


def run_curve(a: Namespace, path: Path, device: Device, open_task: OpenTask) -> None:
    """Measure every checkpoint that was kept; suite.csv and suite.png."""
    newest = kept(path)[-1]
    suite = Suite(subject(a, path, f"step{newest}", open_task), a.num, a.shots, a.seed, device)
    bounds, steps = suite.bounds(), dict[int, list[Row]]()
    for step, model in models(path):
        steps[step] = [*suite.measure(model.to(device.device)), *bounds]
        print(f"step {step}", flush=True)
    print(f"\n{tables(steps[newest], suite.notes)}\n")
    write_steps(path / "suite.csv", steps)
    draw_curve(steps, validation_losses(path), path.name, path / "suite.png")
    print(f"{path / 'suite.csv'}, {path / 'suite.png'}: {len(steps)} steps")


def run_positions(
    path: Path,
    checkpoint: dict[str, Any],
    model: TinyGPT,
    data: TokenDataset,
    T: int,
    B: int,
    device: Device,
) -> None:
    """Loss by position in windows of T tokens; by_position.csv and by_position.png."""
    check_kind(path, checkpoint)
    if len(data.val) < 2:
        raise ValueError(f"{data.meta['name']} has no validation token to score; take more text")
    losses = token_losses(model.to(device.device), data.val, T, B, device)
    V, n_bytes = data.tokenizer.vocab_size, data.val_bytes
    bigram = bigram_baseline(data.train, data.val, V, n_bytes).loss
    each, doubled = by_position(losses), by_doubling(losses)
    used, name = context_used(doubled), data.meta["name"]
    print(f"{path} on {name}: {overall(losses):.4f} nats a token, bigram {bigram:.4f}\n")
    print(spans_table(doubled, bigram))
    print(f"\nfrom position {used.name} on no worse than at the end, to two standard errors")
    write_spans(path / "by_position.csv", each, bigram)
    draw_positions(each, doubled, bigram, f"{path.name} on {name}", path / "by_position.png")
