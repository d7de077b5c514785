"""A training under way: the data, the model and its optimizer, the sinks that report it."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from data.mixture import open_mixture
from model.adapt.qat import round_layers
from utils.config import Settings, flat
from utils.device import (
    Device,
    bfloat16_gain,
    compiled,
    fastest,
    keep_freed_memory,
    memory_advice,
    pick_device,
)
from utils.distributed import Distributed, apply_fsdp, start_processes, wrap_ddp
from utils.hub.pretrained import NAME as PRETRAINED
from utils.reporting.console import Console, headlines
from utils.reporting.csv import MetricsCSV
from utils.reporting.events import Callback, Finished, Sample
from utils.reporting.sinks import Sink, check_sinks, more_sinks
from utils.reporting.summary import commit, summarize, write_json
from utils.reporting.tracker import Tracker
from utils.runs import open_run, run_dir
from utils.tasks.table import task_of
from utils.training.budget import Clock
from utils.training.checkpoint import TrainState, keep_newest, load_checkpoint
from utils.training.interrupt import Interrupt
from utils.training.models import first_model
from utils.training.mup import optimizer_for
from utils.training.score import Score
from utils.training.step import TrainStep
from utils.training.teacher import taught_by
from utils.training.zeros import keep_zeros


class Session:
    """The parts of a run, made from its settings; no run is written before `open`.

    What must be prepared lies in the cache, or in the directory `scratch`.
    """

    def __init__(
        self,
        settings: Settings,
        device: Device,
        dist: Distributed,
        *,
        resume: bool = False,
        scratch: str | None = None,
    ):
        d, s = settings.data, settings.train
        keep_freed_memory()
        check_sinks(settings)
        self.settings, self.dist = settings, dist
        self.path = run_dir(s.run or Path(d.data).stem)
        self.sinks: list[Sink] = []
        lazy = s.parallel == "fsdp" and dist.world_size > 1  # the main process's copy is enough
        self.last = load_checkpoint(self.path / "last.pt", mmap=lazy) if resume else None
        self.device = self.precise(device)
        with dist.main_process_first():
            self.mixture = open_mixture(**settings.text, scratch=scratch)
        self.task = task_of(settings, self.mixture)
        self.data = self.task.data
        self.sampler = self.task.sampler(dist.rank, dist.world_size, device)
        self.keep = not scratch  # whether sums of files are remembered
        self.state = self.begin()

    def precise(self, device: Device) -> Device:
        """The device with its dtype, where that is auto: bfloat16 on a CPU by rank 0's trial.

        A run that goes on keeps the dtype that it began with, whatever this machine does best.
        """
        if self.settings.train.dtype != "auto":
            return device
        then = self.last["settings"].get("dtype", "auto") if self.last else ""
        if then == "float16" and device.device.type != "cuda":
            return device  # nothing else has it
        if then:
            return pick_device(str(device.device), then)
        return fastest(device, lambda: self.dist.broadcast([bfloat16_gain()])[0])

    def begin(self) -> TrainState:
        """A model, with what trains it."""
        s, o, dist = self.settings.train, self.settings.optim, self.dist
        torch.manual_seed(s.seed)
        given = self.settings, self.data, self.last
        begun, source = first_model(*given, self.device.dtype, self.keep)
        begun = self.task.trained(begun)
        model: Any = round_layers(begun, *self.settings.quantize.how).to(self.device.device)
        model.activation_checkpointing = s.recompute
        if s.parallel == "fsdp":
            model = apply_fsdp(model, self.device, dist)
        dist.reseed(s.seed)
        optimizer, scaler = optimizer_for(model, o, self.device.dtype), self.device.scaler()
        settings = {**flat(self.settings), "dtype": self.device.precision}  # auto no longer
        self.teacher, origin = taught_by(*given, self.keep, self.device.device)
        return TrainState(model, optimizer, scaler, settings, self.data.meta, source, origin)

    def open(self, callbacks: Sequence[Callback]) -> None:
        """Make the run's directory, or go on in it from last.pt; open the sinks."""
        s, dist, state = self.settings.train, self.dist, self.state
        resume = self.last is not None
        log = state.load(self.last, dist) if self.last else {}
        if s.keep_zeros:
            keep_zeros(state.model, state.optimizer)
        self.last = None  # as large as the model and its optimizer
        parts = log.get("parts", {"steps": log.get("seconds", 0.0)})  # 0.1.0 had no parts
        self.clock = Clock(parts, log.get("spent", 0.0))
        if dist.is_main:
            tokenizer = self.data.path / "tokenizer.json"
            origin = run_dir(s.init or ".") / PRETRAINED
            also = [origin] if s.init and origin.exists() else []
            open_run(self.path, self.settings, tokenizer, resume=resume, also=also)
            self.sinks = [
                MetricsCSV(self.path, state.step, self.task.sources, self.task.figures),
                Console(state.step, s.steps),
                *more_sinks(self.path, self.settings, state, self.data.val, self.device, callbacks),
            ]
        tokens = self.task.tokens * dist.world_size
        callbacks = [*self.sinks, *callbacks] if dist.is_main else []
        log.setdefault("tokens", state.step * tokens)  # not counted before 0.2.0
        self.tracker = Tracker(self.clock, tokens, s.log_every, s.steps, callbacks, log)
        self.commit = commit()  # now: the code may change while it runs
        shown = self.settings, self.data, state, self.device, dist, tokens
        self.tracker.say("\n".join(headlines(self.path, *shown)))
        model: Any = state.model
        self.model = compiled(model, self.device.device, self.tracker.say) if s.compile else model

    def train_step(self) -> TrainStep:
        """What takes a step of this run: see `TrainStep`."""
        state, grad_clip = self.state, self.settings.optim.grad_clip
        parts = state.optimizer, state.scaler, self.device, grad_clip, self.dist
        model = wrap_ddp(self.model, self.dist, self.settings.train.parallel)
        return TrainStep(model, self.task.objective(self.teacher), *parts)

    def evaluate(self) -> tuple[Score, dict[str, Score]]:
        """Score every source's validation split: (all together, each by name)."""
        return self.task.evaluate(self.model, self.settings.train.batch_size, self.device)

    def message(self, stop: Interrupt) -> list[float]:
        """What ranks tell each other each step: the signal that has come, the seconds so far."""
        return [stop.signal, self.clock.spent()]

    def save(self, name: str, keep: int = 0) -> None:
        """Write a checkpoint; with `keep` also stepN.pt, as many as that."""
        with self.clock("saving"):
            self.state.save(self.path / name, self.tracker.state(), self.dist)
            if keep and self.dist.is_main:
                keep_newest(self.path / name, self.state.step, keep)

    def show_story(self, n: int, indent: str = "    ", known: bool = False) -> None:
        """Show people what the model does with at most n tokens; if `known`, what to make of it."""
        if self.dist.is_main:
            with self.clock("samples"):
                seed = self.settings.train.seed + self.state.step
                text = self.task.example(self.state.model, n, seed)
                self.tracker.emit(Sample(self.state.step, text, indent))
                if known:
                    self.tracker.say(f"\n{self.task.about(text)}")

    def summary(self, stopped_by: str) -> dict[str, Any]:
        """What summary.json holds."""
        ranks = self.dist.world_size
        return summarize(self.state, self.tracker, ranks, stopped_by, self.commit)

    def finish(self, stopped_by: str, again: bool) -> dict[str, Any]:
        """Say and write how the run went; or after a signal save it, and say how to go on."""
        summary, n = self.summary(stopped_by), self.dist.world_size
        if stopped_by.startswith("SIG"):
            self.save("last.pt")
            start = "python" if n == 1 else f"torchrun --nproc_per_node={n} --"
            resume = f"; go on: {start} train.py --run {quote(str(self.path))} --resume"
            self.tracker.say(f"stopped at step {self.state.step}" + (resume if again else ""))
            return summary
        self.write(summary)
        if tokens := self.settings.train.sample:
            self.tracker.say("")
            self.show_story(4 * tokens, indent="", known=True)
            self.tracker.say(f"\nnext: {self.task.next_command(quote(str(self.path)))}")
        return summary

    def diverged(self, e: FloatingPointError, again: bool) -> dict[str, Any]:
        """Say which step was not finite and how to go on. The summary notes it."""
        again = again and (self.path / "last.pt").exists()
        cure = "lower --lr, " + ("and --resume" if again else "and start again")
        if self.dist.is_main:
            print(f"error: step {self.state.step}: {e}; {cure}", file=sys.stderr)
        return self.write(self.summary("diverged"))

    def write(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Write summary.json, and tell all sinks that the run is over."""
        if self.dist.is_main:
            write_json(self.path / "summary.json", summary)
        self.tracker.emit(Finished(summary))
        return summary

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        if kind is BrokenPipeError and self.dist.world_size == 1:  # nobody reads: keep what is new
            if 0 < self.state.best_step == self.state.step:
                self.save("best.pt")
            self.save("last.pt")
        for sink in self.sinks:
            sink.close()


@contextmanager
def started(
    settings: Settings, callbacks: Sequence[Callback] = (), *, resume: bool = False
) -> Iterator[Session]:
    """An open session on the device and among the processes that there are; closed afterwards."""
    s = settings.train
    device = pick_device(s.device, s.dtype)
    with (
        memory_advice(s.batch_size, s.accum),
        start_processes(device) as dist,
        Session(settings, device, dist, resume=resume) as session,
    ):
        session.open(callbacks)
        yield session
