"""What a run tells: metrics.csv and summary.json for machines, a bar and lines for people."""

import csv
import json
import math
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from tqdm import tqdm

from data.prepare import overlap_line
from model.attention import AUTO
from utils.checkpoint import atomic, hold
from utils.metrics import Mean, Score, perplexity
from utils.ranks import ALONE
from utils.timing import Clock, peak_memory

ROOT = Path(__file__).parent.parent
COLUMNS = ["step", "tokens", "seconds", "lr", "train_loss", "grad_norm", "tokens_per_s", "spikes"]
COLUMNS += ["val_loss", "val_ppl", "val_bits_per_byte"]  # of evaluations, which have their own rows
PARTS = ("steps", "data", "logging", "evaluation", "saving", "samples")  # of a run's seconds
QUIET = 5.0  # seconds between lines where there is no terminal to draw a bar on


def tokens_per_step(settings, ranks=ALONE) -> int:
    """Tokens that one optimizer step learns from, all ranks together."""
    s = settings.train
    return s.batch_size * s.accum * ranks.world * settings.model.block_size


def headlines(path, settings, data, state, device):
    """What a run says first: where, on what text, which model, for how long."""
    s, own = settings.train, not settings.data.mixture
    prepared = own and data.path == Path(settings.data.data)
    tokens = tokens_per_step(settings, state.ranks)
    yield f"run     {path}" + (f", from step {state.step}" if state.step else "")
    yield (
        f"data    {settings.data.mixture or settings.data.data}: "
        f"{data.meta['train_tokens']:,} training tokens, "
        f"{data.meta['val_tokens']:,} for validation, vocabulary {data.tokenizer.vocab_size:,}"
    )
    if prepared:
        yield "note    it is prepared already: tokenizer, vocab and doc_sep do not apply"
    road = AUTO if settings.model.attn == "auto" else settings.model.attn
    if overlap_line(data.meta):
        yield f"note    {overlap_line(data.meta)}"
    yield f"model   {state.model.n_params():,} parameters, attention by {road}"
    yield f"device  {device.describe()}"
    if state.ranks.world > 1:
        yield f"ranks   {state.ranks.world}, by {s.parallel}"
    long = f"{s.minutes:g} minutes" if s.minutes else f"{s.steps:,}"
    yield f"steps   {long} of {tokens:,} tokens"
    if settings.optim.warmup >= s.steps and not s.minutes:
        yield f"note    warmup={settings.optim.warmup} steps, so lr is never reached"


def time_line(seconds: dict[str, float]) -> str:
    """How long the steps (first) took, and what each other part did as a share of that.

    {"steps": 50.0, "data": 1.0} -> "time    50.0 s in steps; on top of that: data 2.0%".
    """
    (_, steps), *others = seconds.items()
    shares = ", ".join(f"{part} {s / steps:.1%}" for part, s in others)
    return f"time    {steps:.1f} s in steps; on top of that: {shares}"


class Spikes:
    """Finds losses that leap: more than 6 standard deviations above the mean of about 50 before."""

    def __init__(self, mean=0.0, variance=0.0, seen=0, since=0, total=0):
        self.mean, self.variance, self.seen = mean, variance, seen
        self.since, self.total = since, total  # spikes since the last row, and in all

    def add(self, loss: float) -> bool:
        """Take a loss in; True if it is a spike. Mean and variance fade by 0.98 a step."""
        away, keep = loss - self.mean, min(0.98, self.seen / (self.seen + 1))
        spike = self.seen >= 50 and away > 6 * math.sqrt(self.variance)
        self.variance = keep * (self.variance + (1 - keep) * away**2)
        self.mean, self.seen = loss - keep * away, self.seen + 1
        self.since, self.total = self.since + spike, self.total + spike
        return spike

    def state(self) -> tuple:
        """What `Spikes(*state)` goes on from."""
        return self.mean, self.variance, self.seen, self.since, self.total


class Log:
    """Follows one run. `state()` goes into the checkpoint, and back in as `state` on resume.

    On a rank that is not the first it writes nothing.
    """

    def __init__(
        self,
        path,
        train,
        tokens,
        step=0,
        state=None,
        *,
        sources=(),
        clock=time.perf_counter,
        ranks=ALONE,
    ):
        state = {"seconds": 0.0, "mean": (0.0, 0), "since": (0.0, 0), **(state or {})}
        self.path, self.now, self.tokens_per_step = Path(path), clock, tokens
        more = [f"val_loss_{name}" for name in sources] if len(sources) > 1 else []
        self.columns = [*COLUMNS, *more]  # a mixture's sources have a column each
        self.every, self.steps, self.ranks = train.log_every, train.steps, ranks
        self.clock = Clock(state.get("parts", {"steps": state["seconds"]}), clock)
        self.mean = Mean(*state["mean"])  # of the losses since the last row
        self.since = tuple(state["since"])  # (seconds, step) at the last row
        self.spikes = Spikes(*state.get("spikes", ()))
        self.overflows, self.before = state.get("overflows", 0), state.get("spent", 0.0)
        self.start = self.said = self.now()
        self.commit = commit()  # now: the code may change while it runs
        self._open_csv(step)
        self.bar = tqdm(
            total=self.steps,
            initial=step,
            disable=None if ranks.first else True,  # None: only on a terminal
            bar_format="{percentage:3.0f}%|{bar:24}| {n}/{total} [{elapsed}<{remaining}]{postfix}",
        )

    def _open_csv(self, step: int) -> None:
        """Start metrics.csv, or on resume keep its whole rows up to the checkpoint's step."""
        rows, path = [], self.path / "metrics.csv"
        if not self.ranks.first:
            self.file = open(os.devnull, "a", encoding="utf-8")  # noqa: SIM115
            self.csv = csv.DictWriter(self.file, COLUMNS)
            return
        if step and path.exists():
            with open(path, encoding="utf-8", newline="") as f:
                whole = [r for r in csv.DictReader(f) if r[self.columns[-1]] is not None]
            rows = [r for r in whole if int(r["step"]) <= step]

        def write(part):
            with open(part, "w", encoding="utf-8", newline="") as f:
                csv.DictWriter(f, self.columns, lineterminator="\n").writeheader()
                csv.DictWriter(f, self.columns, lineterminator="\n").writerows(rows)

        atomic(path, write)
        self.file = open(path, "a", encoding="utf-8", newline="")  # noqa: SIM115
        hold(self.file)
        self.csv = csv.DictWriter(self.file, self.columns, lineterminator="\n")

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to write the same rows."""
        mean = (self.mean.total, self.mean.count)
        counts = {"spikes": self.spikes.state(), "overflows": self.overflows, "spent": self.spent()}
        times = {"seconds": self.seconds, "parts": dict(self.clock.seconds)}
        return {**times, "mean": mean, "since": self.since, **counts}

    @property
    def seconds(self) -> float:
        """Of training: steps and their data, not evaluation and what else there is."""
        return self.clock.seconds.get("steps", 0.0) + self.clock.seconds.get("data", 0.0)

    def spent(self) -> float:
        """Seconds since the run began, evaluation included, those between two starts not."""
        return self.before + self.now() - self.start

    def seconds_in(self) -> dict[str, float]:
        """Seconds spent in each of PARTS, and in whatever else there is between them."""
        parts = {part: self.clock.seconds.get(part, 0.0) for part in PARTS}
        return parts | {"other": self.spent() - sum(parts.values())}

    def say(self, text: str) -> None:
        """Print a line for people without breaking the bar."""
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    def length(self, steps: float) -> int:
        """Take down and give back how many steps there will be; with `minutes` that changes."""
        self.steps = self.bar.total = int(steps)
        return self.steps

    def step(self, step: int, loss: float, lr: float, grad_norm: float) -> None:
        """Note a finished step: a row every `every` steps; for people a bar, or lines.

        A gradient norm that is not finite is float16's overflow, whose step was skipped.
        """
        self.mean.add(loss)
        usual = self.spikes.mean
        if self.spikes.add(loss):
            self.say(f"step {step}/{self.steps}  loss spike: {loss:.4f} after {usual:.4f}")
        self.overflows += not math.isfinite(grad_norm)
        seconds, last = self.since
        speed = (step - last) * self.tokens_per_step / max(self.seconds - seconds, 1e-9)
        facts = f"loss {loss:.4f}  ppl {perplexity(loss):.2f}  {speed:,.0f} tok/s"
        self.bar.set_postfix_str(facts, refresh=False)
        self.bar.update()
        if self.bar.disable and (step == 1 or self.now() - self.said >= QUIET):
            left = self.seconds / step * (self.steps - step)
            self.say(f"step {step}/{self.steps}  {facts}  {left:.0f} s left")
            self.said = self.now()
        if step % self.every == 0 or step == self.steps:
            self._row(
                step,
                lr=lr,
                train_loss=self.mean.value,
                grad_norm=grad_norm,
                tokens_per_s=round(speed),
                spikes=self.spikes.since,
            )
            self.mean, self.since = Mean(), (self.seconds, step)
            self.spikes.since = 0

    def score(self, step: int, score: Score, best: bool, parts: dict[str, Score] | None = None):
        """Note an evaluation, of a mixture also by source: a row, and a line for people."""
        parts = parts if parts and len(parts) > 1 else {}
        own = {f"val_loss_{name}": part.loss for name, part in parts.items()}
        row = {"val_loss": score.loss, "val_ppl": score.ppl}
        self._row(step, **row, val_bits_per_byte=score.bits_per_byte, **own)
        each = "".join(f"  {name} {part.loss:.4f}" for name, part in parts.items())
        self.say(
            f"step {step}/{self.steps}  val loss {score.loss:.4f}  ppl {score.ppl:.2f}  "
            f"{score.bits_per_byte:.3f} bits/byte{each}" + ("  best so far" if best else "")
        )

    def _row(self, step: int, **values: float) -> None:
        seconds = round(self.seconds, 3)
        self.csv.writerow(
            {"step": step, "tokens": step * self.tokens_per_step, "seconds": seconds, **values}
        )
        self.file.flush()

    def stopped(self, step: int, again: bool) -> None:
        """Say that a signal has stopped the run, and how to go on."""
        n = self.ranks.world
        start = "python" if n == 1 else f"torchrun --nproc_per_node={n} --"
        go_on = f"; go on: {start} train.py --run {quote(str(self.path))} --resume"
        self.say(f"stopped at step {step}" + (go_on if again else ""))

    def diverged(self, state, e: FloatingPointError) -> int:
        """Say which step was not finite and how to go on; the exit status. The summary notes it."""
        again = "and --resume" if (self.path / "last.pt").exists() else "and start again"
        print(f"error: step {state.step}: {e}; lower --lr, {again}", file=sys.stderr)
        self.summary(state, "diverged")
        return 3

    def summary(self, state, stopped_by: str) -> None:
        """Write summary.json, and its gist for people. `stopped_by` says what ended the run."""
        if not self.ranks.first:
            return
        seconds, tokens = self.seconds, state.step * self.tokens_per_step
        values = {
            "best_val_loss": state.best_val_loss,
            "best_step": state.best_step,
            "steps": state.step,
            "stopped_by": stopped_by,
            "tokens": tokens,
            "seconds": round(seconds, 3),  # of training: steps and data
            "seconds_in": {part: round(s, 3) for part, s in self.seconds_in().items()},
            "tokens_per_s": round(tokens / max(seconds, 1e-9)),
            "peak_memory": peak_memory(),  # bytes of this process, or of its GPU
            "spikes": self.spikes.total,
            "overflows": self.overflows,
            "params": state.model.n_params(),
            "seed": state.settings["seed"],
            "ranks": self.ranks.world,
            "data": state.data,
            "settings": state.settings,
            "machine": machine(),
            **self.commit,
        }
        if math.isinf(state.best_val_loss):  # JSON has no infinity
            values["best_val_loss"] = None
        write_json(self.path / "summary.json", values)
        if stopped_by == "diverged":
            return
        odd = ((self.spikes.total, "loss spikes"), (self.overflows, "float16 overflows"))
        self.say(
            f"done    {tokens:,} tokens in {seconds:.0f} s; best val loss "
            f"{state.best_val_loss:.4f} at step {state.best_step}"
            + "".join(f"; {n} {what}" for n, what in odd if n)
        )
        if seconds:
            self.say(time_line(self.seconds_in()))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.bar.close()
        self.file.close()


def write_json(path, values: dict[str, Any]) -> None:
    """Write a JSON file that is whole or not there."""
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    atomic(path, lambda part: Path(part).write_text(text, encoding="utf-8"))


def commit(root=ROOT) -> dict[str, Any]:
    """The checkout's commit, and whether files differ from it; None, None where there is none."""
    unknown = {"commit": None, "dirty": None}
    command = ["git", "-C", str(root), "status", "--porcelain=v2", "--branch", "-uno"]
    if not (root / ".git").exists():  # nor does that of some folder above it count
        return unknown
    try:
        lines = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):  # no git, or not allowed here
        return unknown
    head, *rest = lines.splitlines()
    return {"commit": head.split()[-1], "dirty": any(line[0] != "#" for line in rest)}


def machine() -> dict[str, str]:
    """What the run ran on: versions and processor."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "threads": str(torch.get_num_threads()),
    }
