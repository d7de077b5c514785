"""Evaluate a run on local tasks by EleutherAI's lm-evaluation-harness, without a network.

A task is one of its YAML files over local data; docs/serving.md has an example.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tok.cli import one_line
from tok.files import replacing

EXTRA = "evaluating needs the packages of an extra: pip install 'llm-tiny[harness]'"
OFFLINE = "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE"
Results = dict[str, Any]


def check_tasks(tasks: Sequence[str]) -> None:
    """Raise ValueError for a task that is not a YAML file that is there."""
    for task in tasks:
        if not task.endswith((".yaml", ".yml")) or not Path(task).is_file():
            raise ValueError(f"{task} is no task: give the path of a YAML file that describes one")


def offline() -> None:
    """Let nothing of the harness look for a network; before it is imported."""
    for name in OFFLINE:
        os.environ.setdefault(name, "1")


def evaluate(
    run: str, tasks: Sequence[str], *, limit: int | None = None, chat: bool = False, **how: Any
) -> Results:
    """What the harness finds: its results and each sample's; `how` is what TinyLM takes.

    `limit` is the number of samples of each task, `chat` asks by the run's chat template. Raises
    ValueError for a task that cannot be read, and if the harness is not installed.
    """
    check_tasks(tasks)
    offline()
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager

        from utils.serve.harness import TinyLM
    except ImportError as e:
        raise ValueError(f"{EXTRA} ({e.name} is missing)") from None
    manager = TaskManager(include_defaults=False)
    lm = TinyLM(run, **how)
    asked = {"tasks": list(tasks), "limit": limit, "apply_chat_template": chat}
    try:
        return simple_evaluate(lm, task_manager=manager, **asked)
    except yaml.YAMLError as e:
        raise ValueError(f"a task is not YAML: {one_line(e)}") from None


def table(results: Results) -> str:
    """The harness's table of results."""
    from lm_eval.utils import make_table

    return make_table(results) + (make_table(results, "groups") if results.get("groups") else "")


def write_results(results: Results, path: str) -> None:
    """Write all that the harness found as JSON."""
    from lm_eval.utils import handle_non_serializable

    text = json.dumps(results, indent=2, ensure_ascii=False, default=handle_non_serializable)
    with replacing(Path(path)) as part:
        Path(part).write_text(text + "\n", encoding="utf-8")
