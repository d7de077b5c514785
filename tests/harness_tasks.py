"""Local tasks for lm-evaluation-harness, made of our stories, and what each of three ways says."""

import json
import re
import shutil
from pathlib import Path

import pytest

for package, extra in ("lm_eval", "harness"), ("transformers", "peers"), ("fastapi", "serve"):
    pytest.importorskip(package, reason=f"pip install 'llm-tiny[{extra}]'")

TASKS = "choose", "read", "write"
STORIES = (
    (Path(__file__).parents[1] / "data" / "tiny.txt").read_text(encoding="utf-8").split("\n\n")
)


def halves(text):
    """A sentence cut before a word in its middle: "The fox ran." -> "The fox", " ran."."""
    at = [m.start() for m in re.finditer(" ", text)]
    return text[: at[len(at) // 2]], text[at[len(at) // 2] :]


def write_tasks(home, n, more=()):
    """Three tasks of n samples each in a directory; `more` are further samples of choose."""
    fixtures = Path(__file__).parent / "fixtures" / "harness"
    for task in TASKS:
        shutil.copy(fixtures / f"{task}.yaml", home)
    sentences = [s + "." for story in STORIES[: 4 * n] for s in story.split(".")[1:3] if " " in s]
    pairs = [halves(s.strip()) for s in sentences[: n + 2]]
    choices = [
        {"begin": begin, "choices": [end for _, end in pairs[i : i + 3]], "right": 0}
        for i, (begin, _) in enumerate(pairs[:n])
    ]
    samples = {
        "choose": [*choices, *more],
        "read": [{"text": text[:200]} for text in STORIES[:n]],
        "write": [{"begin": begin, "end": end} for begin, end in pairs[:n]],
    }
    for task, rows in samples.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (home / f"{task}.jsonl").write_text(lines, encoding="utf-8")


def answers(lm, home):
    """What a model of the harness says to the tasks of a directory: each sample's answers."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr("lm_eval.evaluator.add_env_info", lambda found: None)  # seconds, for pip list
        tasks, manager = [f"{task}.yaml" for task in TASKS], TaskManager(include_defaults=False)
        found = simple_evaluate(lm, tasks=tasks, task_manager=manager, bootstrap_iters=0)
    told = {}
    for task in TASKS:
        samples = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
        told[task] = [answer for sample in samples for (answer,) in sample["resps"]]
    return told


def ours(run, **how):
    """Our class."""
    from utils.serve.harness import TinyLM

    return TinyLM(str(run), device="cpu", **how)


def peer(run, path, **how):
    """transformers on the exported directory.

    Without its cache of logits: where two samples are one text, cut at two places, it takes the
    shorter continuation's log-probabilities from the wrong positions (lm_eval 0.4.13).
    """
    from lm_eval.models.huggingface import HFLM

    from utils.hub.exporter import export

    if not path.exists():
        export(run, "hf", str(path))
    how = {"dtype": "float32", "batch_size": 1, "logits_cache": False, **how}
    return HFLM(str(path), device="cpu", **how)


def remote(server, max_length, **how):
    """The harness's client of our server, with windows of as many tokens as the other two.

    It keeps one token back for the one that is written, and one more for a rolling window's first.
    """
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    url = server.url + "/v1/completions"
    name = next(iter(server.server.served))
    how = {"tokenizer_backend": "remote", "max_length": max_length + 2, **how}
    return LocalCompletionsAPI(model=name, base_url=url, **how)


def score(answer, ctxlens):
    """What that client reads in an answer: (log-probability, greedy) of what follows a context."""
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    return LocalCompletionsAPI.parse_logprobs(answer, ctxlens=ctxlens)
