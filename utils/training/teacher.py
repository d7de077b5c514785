"""The teacher of a distillation: a run's model that is read, never trained and never saved."""

from pathlib import Path
from typing import Any

import torch

from data.store import TokenDataset
from model import GPTConfig, TinyGPT
from utils.config import Settings
from utils.distill_config import DistillConfig
from utils.runs import check_apart, run_dir
from utils.training.checkpoint import fitting, load_checkpoint, model_config
from utils.training.distill import Distillation
from utils.training.models import (
    Source,
    base_of,
    build_model,
    checkpoint_path,
    find_base,
    in_floats,
)
from utils.training.objective import Objective, next_token


def check_teacher(
    run: str, checkpoint: dict[str, Any], tokenizer_sha256: str, T: int, kind: str = "gpt"
) -> None:
    """Raise ValueError if a teacher reads other tokens than its student, or fewer at once.

    Or if it is of another kind.
    """
    if (found := checkpoint.get("kind", "gpt")) != kind:
        names = {"gpt": "a GPT", "bert": "a BERT"}
        raise ValueError(f"the teacher {run} is {names[found]}, and its student {names[kind]}")
    if checkpoint["data"]["tokenizer_sha256"] != tokenizer_sha256:
        cure = f"--tokenizer {run}/tokenizer.json"
        raise ValueError(f"the teacher {run} has another tokenizer than the student; {cure}")
    config = model_config(checkpoint)
    if config.block_size < T and not config.slides:
        most = config.block_size
        raise ValueError(f"block_size={T}, but the teacher {run} reads {most}; lower it to {most}")


def taught_by(
    settings: Settings,
    data: TokenDataset,
    last: dict[str, Any] | None,
    keep: bool,
    device: torch.device,
) -> tuple[TinyGPT | None, Source | None]:
    """The teacher's model, frozen and in floats, and its run with the hash of its weights; or None.

    A run that goes on from `last` must have the very teacher that it began with. Raises ValueError
    for one that does not fit, or has changed.
    """
    if not (name := settings.distill.teacher):
        return None, None
    own = run_dir(settings.train.run or Path(settings.data.data).stem)
    check_apart(own, run_dir(name), "--teacher")
    source = base_of(run_dir(name), keep=keep) if last is None else last["teacher"]
    run = find_base(source, own.parent)
    checkpoint = load_checkpoint(checkpoint_path(run, source["ckpt"]), mmap=True)
    shape = settings.model.block_size, settings.objective.kind
    check_teacher(str(run), checkpoint, data.meta["tokenizer_sha256"], *shape)
    with fitting(str(run)):
        model = in_floats(build_model(checkpoint, near=run.parent))
    return model.eval().requires_grad_(False).to(device), source


def objective_of(distill: DistillConfig, teacher: TinyGPT | None) -> Objective:
    """What a training minimises, with its teacher or without one."""
    if teacher is None:
        return next_token
    return Distillation(teacher, distill.distill_alpha, distill.distill_temperature)


def config_of(teacher: TinyGPT | None) -> GPTConfig | None:
    """The shape of a teacher, if there is one."""
    return teacher.config if teacher else None
