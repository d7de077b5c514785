"""How long a variant's step takes beside the baseline's: the two take turns in one process."""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tok.files import replacing
from utils.ablate.plan import Plan, settings_of
from utils.config import Settings, flat

Paces = dict[str, dict[str, float]]
ROUNDS = 25


def stepper(settings: Settings) -> Callable[[], object]:
    """A call that takes the first step of a run again and again; no run is written."""
    from utils.device import pick_device
    from utils.distributed import start_processes
    from utils.session import Session
    from utils.training.step import TrainStep
    from utils.training.teacher import objective_of

    device = pick_device(settings.train.device, settings.train.dtype)
    with start_processes(device) as dist:
        session = Session(settings, device, dist)
    state, objective = session.state, objective_of(settings.distill, session.teacher)
    parts = state.optimizer, state.scaler, session.device, settings.optim.grad_clip
    return partial(TrainStep(state.model, objective, *parts), session.sampler.draw(0))


def clock() -> Callable[[], float]:
    """CPU time where one thread computes, so that other programs do not count; else the time."""
    import torch

    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    return time.process_time if alone else time.perf_counter


def ratio(variant: Settings, baseline: Settings) -> float:
    """How many times the baseline's step a variant's takes: the median over rounds of both."""
    from utils.bench.timing import take_turns

    steppers = {"baseline": stepper(baseline), "variant": stepper(variant)}
    seconds = take_turns(steppers, ROUNDS, warmup=5, clock=clock())
    pairs = zip(seconds["variant"], seconds["baseline"], strict=True)
    return statistics.median(ours / theirs for ours, theirs in pairs)


def paces(plan: Plan) -> Paces:
    """{text: {variant: ratio}}, kept in pace.json: measured once, so that runs can go on.

    Another baseline starts anew.
    """
    file = plan.path / "pace.json"
    known = read(file, plan.baseline)
    for text, path in plan.texts.items():
        own = known.setdefault(text, {})
        at = replace(plan.baseline, data=replace(plan.baseline.data, data=path))
        for variant in (v for v in plan.variants if v.name not in own):
            own[variant.name] = ratio(settings_of(variant, at), at) if variant.settings else 1.0
            write(file, plan.baseline, known)
    return known


def read(file: Path, baseline: Settings) -> Paces:
    """What pace.json knows if it is of this baseline; else nothing."""
    if not file.exists():
        return {}
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    ratios: Paces = found["ratios"]
    return ratios if found["baseline"] == flat(baseline) else {}


def write(file: Path, baseline: Settings, paces: Paces) -> None:
    """Write pace.json, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    found = {"version": 1, "baseline": flat(baseline), "ratios": paces}
    with replacing(file) as part:
        Path(part).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
