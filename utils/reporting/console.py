"""What people see of a run: first lines, a progress bar or a line now and then, last lines."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.encode import unknown_line
from data.overlap import overlap_line
from data.store import TokenDataset
from model.attention import AUTO
from utils.config import Settings
from utils.device import Device
from utils.distributed import Distributed
from utils.reporting.events import Evaluation, Event, Finished, Message, Sample, Step
from utils.training.checkpoint import TrainState
from utils.training.score import perplexity

QUIET = 5.0  # seconds between lines where there is no terminal to draw a bar on
BAR = "{percentage:3.0f}%|{bar:24}| {n}/{total} [{elapsed}<{remaining}]{postfix}"


def headlines(
    path: Path,
    settings: Settings,
    data: TokenDataset,
    state: TrainState,
    device: Device,
    dist: Distributed,
    tokens: int,
) -> Iterator[str]:
    """What a run says first: where, on what text, which model, for how long, by so many tokens."""
    d, s, meta = settings.data, settings.train, data.meta
    yield f"run     {path}" + (f", from step {state.step}" if state.step else "")
    yield (
        f"data    {d.mixture or d.data}: {meta['train_tokens']:,} training tokens, "
        f"{meta['val_tokens']:,} for validation, vocabulary {data.tokenizer.vocab_size:,}"
    )
    if not d.mixture and data.path == Path(d.data):
        yield "note    it is prepared already: tokenizer, vocab and doc_sep do not apply"
    if line := overlap_line(meta):
        yield f"note    {line}"
    if line := unknown_line(data.tokenizer, data.val):
        yield f"note    in validation {line}"
    attention = AUTO if settings.model.attn == "auto" else settings.model.attn
    trained = sum(p.numel() for p in state.model.parameters() if p.requires_grad)
    n = state.model.n_params()
    where = "in adapters" if settings.lora.lora else "in use"
    some = f", {trained:,} of them {where}, the rest frozen" if trained < n else ""
    yield f"model   {n:,} parameters{some}, attention by {attention}"
    if s.init:
        yield f"init    {s.init}"
    if settings.distill.teacher:
        how = settings.distill
        share = f"{how.distill_alpha:g} of the loss at temperature {how.distill_temperature:g}"
        yield f"teacher {how.teacher}, {share}"
    if settings.quantize.bits:
        yield f"weights rounded to {settings.quantize}"
    yield f"device  {device.describe()}"
    if cost := device.cost():
        yield f"note    {cost}"
    if dist.world_size > 1:
        yield f"ranks   {dist.world_size}, by {s.parallel}"
    if s.minutes:
        yield f"steps   {s.minutes:g} minutes of {tokens:,} tokens"
    else:
        epochs = s.steps * tokens / meta["train_tokens"]
        yield f"steps   {s.steps:,} of {tokens:,} tokens: the text {epochs:.1f} times"
    if settings.optim.warmup >= s.steps and not s.minutes:
        yield f"note    warmup={settings.optim.warmup} steps, so lr is never reached"


def shown(name: str, value: float) -> str:
    """A figure of a score: `0.308 bits/byte`, or `next accuracy 93.0%`."""
    if name == "bits_per_byte":
        return f"{value:.3f} bits/byte"
    return f"{name.replace('_', ' ')} {value:.1%}"


def last_lines(summary: dict[str, Any]) -> Iterator[str]:
    """What a finished run says last: how much, how good, where the time went."""
    loss, step = summary["best_val_loss"], summary["best_step"]
    seen = f"{summary['tokens']:,} tokens, the text {summary['epochs']:.1f} times,"
    done = f"{seen} in {summary['seconds']:.0f} s"
    best = f"best val loss {float('inf') if loss is None else loss:.4f} at step {step}"
    odd = ((summary["spikes"], "loss spikes"), (summary["overflows"], "float16 overflows"))
    if summary["stopped_by"] == "patience":
        yield f"note    no better since step {step}; --resume --patience 0 goes on all the same"
    yield f"done    {done}; {best}" + "".join(f"; {n} {what}" for n, what in odd if n)
    if summary["seconds_in"]["steps"]:
        yield time_line(summary["seconds_in"])


def time_line(seconds: dict[str, float]) -> str:
    """How long the steps (first) took, and what each other part did as a share of that.

    {"steps": 50.0, "data": 1.0} -> "time    50.0 s in steps; on top of that: data 2.0%".
    """
    (_, steps), *others = seconds.items()
    shares = ", ".join(f"{part} {s / steps:.1%}" for part, s in others)
    return f"time    {steps:.1f} s in steps; on top of that: {shares}"


class Console:
    """Prints events for people: a bar on a terminal, else a line every few seconds."""

    def __init__(self, step: int, steps: int, now: Callable[[], float] = time.perf_counter):
        self.now, self.printed = now, now()
        quiet = None  # tqdm's word for: unless it is a terminal
        self.bar: tqdm[Any] = tqdm(total=steps, initial=step, bar_format=BAR, disable=quiet)

    def __call__(self, event: Event) -> None:
        """Print an event, if people are to see it."""
        if isinstance(event, Message):
            self.print(event.text)
        if isinstance(event, Sample):
            self.print(event.indent + event.text.replace("\n", "\n" + event.indent))
        if isinstance(event, Step):
            self.step(event)
        if isinstance(event, Evaluation):
            self.evaluation(event)
        if isinstance(event, Finished) and event.summary["stopped_by"] != "diverged":
            self.print("\n".join(last_lines(event.summary)))

    def print(self, text: str) -> None:
        """Print a line without breaking the bar."""
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    def step(self, e: Step) -> None:
        """Move the bar, or print a line."""
        facts = f"loss {e.loss:.4f}  ppl {perplexity(e.loss):.2f}  {e.tokens_per_s:,.0f} tok/s"
        self.bar.total = e.steps  # with --minutes it changes
        self.bar.set_postfix_str(facts, refresh=False)
        self.bar.update()
        if self.bar.disable and (e.step == 1 or self.now() - self.printed >= QUIET):
            self.print(f"step {e.step}/{e.steps}  {facts}  {e.seconds_left:.0f} s left")
            self.printed = self.now()

    def evaluation(self, e: Evaluation) -> None:
        """Print a score, and whether it is the best."""
        score = e.score
        sources = "".join(f"  {name} {own.loss:.4f}" for name, own in e.sources.items())
        figures = "".join(f"  {shown(name, value)}" for name, value in score.figures.items())
        self.print(
            f"step {e.step}/{e.steps}  val loss {score.loss:.4f}  ppl {score.ppl:.2f}"
            f"{figures}{sources}" + ("  best so far" if e.best else "")
        )

    def close(self) -> None:
        """Take the bar away."""
        self.bar.close()
