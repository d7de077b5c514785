"""Score a trained model on its whole validation text, beside baselines of frequencies alone.

python eval.py                      # the newest run
python eval.py --run tiny --ckpt last
python eval.py --run tiny --data other.txt
python eval.py --run my-smollm2     # a fine-tuned run, beside the model it started from
python eval.py --suite              # skills and rules kept; --curve: at each step of --keep
python eval.py --by-position        # loss by position: how much context it uses
"""

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tok.cli import Parser, run
from utils.config import recorded_settings
from utils.runs import latest_run, run_dir
from utils.suite.flags import add_flags, check_flags

if TYPE_CHECKING:  # what needs torch is imported by `main`, not for --help or a wrong flag
    from model import TinyGPT
    from utils.tasks.table import Task
    from utils.training.score import Score

TOKENS_AT_ONCE = 1 << 14  # in one batch of windows


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the flags."""
    p = Parser(prog="eval.py", description=__doc__)
    p.add_argument("--run", help="a name under runs/, or a path (default: the newest)")
    p.add_argument(
        "--ckpt", choices=("best", "last"), default="best", help="checkpoint (default best)"
    )
    p.add_argument("--data", help="another text, or prepared directory (default: the run's own)")
    p.add_argument("--block_size", type=int, default=0, help="tokens a window (default the run's)")
    p.add_argument(
        "--batch_size", type=int, help="windows at once (default 16, fewer of long ones)"
    )
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    p.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16")
    add_flags(p)
    return check_flags(p.parse_args(argv))


def open_task(a: Namespace, path: Path, checkpoint: dict[str, Any]) -> "Task":
    """What the run learns, on the text to score: its own, or a.data through its tokenizer."""
    from data.mixture import open_mixture
    from utils.tasks.table import task_of
    from utils.training.checkpoint import same_data

    settings = recorded_settings(checkpoint["settings"], path)
    own = settings.data
    if not a.data and "train_tokens" not in checkpoint["data"]:
        raise ValueError(f"{path} is a pretrained model without a text; give --data")
    if a.data:
        own = replace(own, data=a.data, mixture="", tokenizer=str(path / "tokenizer.json"))
    settings = replace(settings, data=own)
    mixture = open_mixture(**settings.text)
    meta = mixture.combined().meta
    if not a.data:
        same_data(checkpoint["data"], meta)
    elif meta["tokenizer_sha256"] != checkpoint["data"]["tokenizer_sha256"]:
        raise ValueError(f"{a.data} was prepared with another tokenizer; give the text itself")
    return task_of(settings, mixture)


def base_scores(
    model: "TinyGPT", checkpoint: dict[str, Any], near: Path, score: "Callable[[TinyGPT], Score]"
) -> "dict[str, Score]":
    """What the model started from scores: the adapters' base, or the run of that name and hash."""
    from model.adapt.lora import without_lora
    from utils.training.models import source_model

    if checkpoint.get("base"):
        with without_lora(model):
            return {"base": score(model)}
    source = checkpoint.get("source")
    if not source or getattr(model.config, "classes", False):  # before it knew them
        return {}
    try:
        base = source_model(source, model.config, near)
    except ValueError as e:
        print(f"note: no scores of the base: {e}", file=sys.stderr)
        return {}
    return {"base": score(base)}


def main(argv: Sequence[str] | None = None) -> None:
    """Print and keep loss, ppl, bits per byte or accuracy, of the model and of the baselines."""
    a = parse(argv)
    if a.batch_size is not None and a.batch_size < 1:
        raise ValueError(f"batch_size={a.batch_size} must be at least 1")
    path = run_dir(a.run) if a.run else latest_run()

    from utils.device import pick_device
    from utils.reporting.summary import write_json
    from utils.suite.command import run_positions, run_suite
    from utils.tasks.rows import row, table
    from utils.training.models import load_model

    device = pick_device(a.device, a.dtype)  # auto on a CPU: float32, so that machines agree
    if cost := device.cost():
        print(f"note: {cost}", file=sys.stderr)
    if a.suite:
        return run_suite(a, path, device, open_task)
    model, _, checkpoint = load_model(path, a.ckpt, kind="")
    task = open_task(a, path, checkpoint)
    T = model.config.block_size
    if a.block_size < 0 or (a.block_size > T and not model.config.slides):
        raise ValueError(f"block_size={a.block_size} must be 1 to {T}, the model's; 0 = that")
    T = a.block_size or T
    B = a.batch_size or min(16, max(1, TOKENS_AT_ONCE // T))
    if a.by_position:
        return run_positions(
            path, checkpoint, model, task.mixture.combined(load=True), T, B, device
        )

    def scored(model: "TinyGPT") -> "tuple[Score, dict[str, Score]]":
        return task.evaluate(model.to(device.device), B, device, T)

    score, sources = scored(model)
    bases = base_scores(model, checkpoint, path.parent, lambda model: scored(model)[0])
    own = {f"- {name}": one for name, one in sources.items() if len(sources) > 1}
    rows = {name: row(one) for name, one in {"model": score, **bases, **own}.items()}
    rows |= task.baselines(T)
    meta = task.data.meta
    print(f"{path}/{a.ckpt}.pt, step {checkpoint['step']}, on {meta['name']}: ", end="")
    print(f"{score.tokens:,} {task.unit}\n\n{table(rows)}{task.details(model, B, device)}")
    text = {"text": meta["name"], "text_sha256": meta["text_sha256"]}
    origin = {"checkpoint": a.ckpt, "step": checkpoint["step"], **text}
    write_json(path / ("eval-other.json" if a.data else "eval.json"), {**origin, **rows})


if __name__ == "__main__":
    run(main)
