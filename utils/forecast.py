"""What a run will take, before it is begun: parameters, tokens, memory, time, files.

It takes steps of that very run, under torchrun on all ranks, at a learning rate of 0. So what it
says is measured; memory is counted first, for the steps may not fit.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from model.adapt.lora import lora_state
from model.moe import active_weights
from utils.bench.timing import summary, take_turns
from utils.config import Settings
from utils.device import compiled, memory_advice, peak_memory, pick_device, wait
from utils.distributed import start_processes
from utils.session import Session
from utils.training.evaluate import evaluate
from utils.training.memory import resident, step_memory
from utils.training.objective import Batch, next_token
from utils.training.step import TrainStep
from utils.training.teacher import config_of

SLOW = 20.0  # seconds of a micro-batch: the first one is then the measurement


def forecast(settings: Settings, scratch: str, resume: bool = False) -> int:
    """Print the size of a run, or of what is left of it; then, by some steps, how long it takes; 0.

    What has to be made for that is left in the directory `scratch`.
    """
    s = settings.train
    device = pick_device(s.device, s.dtype)
    with memory_advice(s.batch_size, s.accum), start_processes(device) as dist:
        session = Session(settings, device, dist, resume=resume, scratch=scratch)
        session.model = session.state.model
        if s.compile:
            session.model = compiled(session.model, session.device.device, print)
        step = session.train_step()
        size(session)
        counting = memory(session, step)
        per_step, per_evaluation = duration(session, step), evaluation(session)
        how_long(session, per_step, per_evaluation)
        peak = peak_memory() - counting
        print(f"peak        {peak / 1e6:,.0f} MB in these steps" + each(session))
        kept = 2 + (s.keep if s.minutes else min(s.keep, -(-s.steps // s.eval_every)))
        print(f"files       {kept} checkpoints of {checkpoint_bytes(session) / 1e6:,.1f} MB")
    return 0


def each(session: Session) -> str:
    """What is said of a figure that every process has of its own."""
    return ", in each process" if session.dist.world_size > 1 else ""


def size(session: Session) -> None:
    """Print what a run is made of, and of how much text."""
    settings, state, device = session.settings, session.state, session.device
    ranks, minutes = session.dist.world_size, settings.train.minutes
    tokens, steps = session.task.tokens * ranks, steps_left(session)
    print(f"device      {device.describe()}")
    if cost := device.cost():
        print(f"note        {cost}")
    n, trained = state.model.n_params(), n_trained(session)
    weights = (m.weight.numel() for m in state.model.modules() if isinstance(m, nn.Linear))
    idle = sum(weights) - active_weights(state.model)
    some = f", {trained:,} of them trained" if trained < n else ""
    some += f", {idle:,} of them idle at each token" if idle else ""
    print(f"parameters  {n:,}{some}")
    if session.teacher:
        print(f"teacher     {session.teacher.n_params():,} parameters, which are only read")
    times = tokens * steps / session.data.meta["train_tokens"]
    some = f"{tokens:,} a step" + (f" on {ranks} processes" if ranks > 1 else "")
    in_all = f", {tokens * steps:,} in {steps:,} steps: the text {times:,.1f} times"
    print(f"tokens      {some}" + ("" if minutes else in_all))


def n_trained(session: Session) -> int:
    """Parameters that training changes: all, or adapters."""
    return sum(p.numel() for p in session.state.model.parameters() if p.requires_grad)


def memory(session: Session, step: TrainStep) -> int:
    """Print the memory of a step, counted. Gives the bytes that counting took from this process.

    Under torchrun a process holds 1/N of weights, gradients and moments with fsdp; with ddp it
    holds the gradients twice, as it sends them.
    """
    s, state, ranks = session.settings, session.state, session.dist.world_size
    load(session, step)
    before, device = resident(), session.device
    shape = state.model.config, s.optim, device, s.train.batch_size, s.train.recompute, s.lora
    learn = (step.objective, session.sampler.draw(0)[0]) if s.objective.kind == "bert" else None
    tensors = step_memory(*shape, s.distill, config_of(session.teacher), s.quantize, learn)
    counting = resident() - before
    if ranks > 1 and s.train.parallel == "fsdp":
        tensors -= 16 * state.model.n_params() * (ranks - 1) // ranks
    elif ranks > 1:
        tensors += 4 * n_trained(session)
    said = f"{tensors / 1e6:,.0f} MB of the device"
    if on_cpu := device.device.type == "cpu":
        weights = sum(p.nbytes for p in state.model.parameters())  # which are there already
        held = before - weights + tensors
        said = f"{held / 1e6:,.0f} MB or more, {tensors / 1e6:,.0f} of them tensors"
    print(f"memory      {said}{each(session)}")
    return counting if on_cpu else 0


@torch.no_grad()
def load(session: Session, step: TrainStep) -> None:
    """Load what torch needs for a forward pass, by one row: some 80 MB for a large vocabulary.

    Counting needs the same, which the run must not be relieved of.
    """
    row = tuple(t[:1] for t in session.sampler.draw(0)[0])
    with session.device.autocast():
        step.objective(step.model, session.device.move(row))


def steps_left(session: Session) -> int:
    """Steps that a run has still to take, if no clock ends it."""
    done = session.last["step"] if session.last else 0
    return max(0, session.settings.train.steps - done)


def step_seconds(step: TrainStep, batches: Sequence[Batch]) -> float:
    """Seconds of a step; with many micro-batches, by steps of one and of two of them."""
    n, start = len(batches), time.perf_counter()
    step(batches[:1])
    wait()
    first = time.perf_counter() - start
    if first > SLOW:
        return first * n
    if n <= 2:
        return summary(take_turns({"step": lambda: step(batches)}, runs=3, warmup=1)["step"])[0]
    pair = {"one": partial(step, batches[:1]), "two": partial(step, batches[:2])}
    one, two = (summary(seconds)[0] for seconds in take_turns(pair, runs=3, warmup=1).values())
    return one + (n - 1) * max(0.0, two - one)


def duration(session: Session, step: TrainStep) -> float:
    """Seconds of a step of the run, a mean over its phases."""
    for group in session.state.optimizer.param_groups:
        group["lr"] = 0.0  # the model stays as it is: no first step can harm it
    steps, sampler = session.settings.train.steps, session.sampler
    total, begin = 0.0, 0
    for phase in sampler.phases:
        end = int(min(phase.until, steps))
        if begin < end:
            total += (end - begin) * step_seconds(step, sampler.draw(begin))
            begin = end
    return total / steps


def evaluation(session: Session) -> float:
    """Seconds of scoring the validation split, by its first windows."""
    s, T, data = session.settings.train, session.settings.model.block_size, session.data
    model = session.state.model
    n = min(len(data.val), s.batch_size * T + 1)
    where = data.val_bytes, s.batch_size, session.device
    score: Callable[[], object] = partial(evaluate, model, next_token, data.val[:n], *where)
    if session.settings.objective.kind == "bert":  # whose split is scored as a whole
        n, score = data.meta["val_tokens"], partial(session.task.evaluate, model, *where[1:])
    median, _ = summary(take_turns({"score": score}, runs=2, warmup=1)["score"])
    return median * data.meta["val_tokens"] / n


def how_long(session: Session, per_step: float, per_evaluation: float) -> None:
    """Print the time that steps and evaluations take, or how many steps --minutes has room for."""
    s, left = session.settings.train, steps_left(session)
    if s.minutes:
        spent = session.last["log"].get("spent", 0.0) if session.last else 0.0
        pace = per_step + per_evaluation / s.eval_every
        left = max(1, int((60 * s.minutes - spent) / pace))
    tokens = left * session.task.tokens * session.dist.world_size
    ended = f"about {left:,} steps in --minutes {s.minutes:g}, {tokens:,} tokens"
    if not s.minutes:
        ended = f"{per_step * left / 60:,.1f} minutes for {left:,} steps"
    sooner = "; --patience may end it sooner" if s.patience else ""
    print(f"time        {per_step * 1e3:,.0f} ms a step, {ended}{sooner}")
    times = -(-left // s.eval_every)
    minutes = times * per_evaluation / 60
    print(f"evaluation  {times} x {per_evaluation:,.1f} s, {minutes:,.1f} minutes in all")


def checkpoint_bytes(session: Session) -> int:
    """Bytes of the tensors in a checkpoint: weights, or adapters alone, and the moments."""
    model, optimizer = session.state.model, session.state.optimizer
    weights = list(lora_state(model).values()) or list(model.parameters())
    leaves = [*weights, *tree_leaves(optimizer.state_dict())]
    return sum(t.numel() * t.element_size() for t in leaves if isinstance(t, torch.Tensor))
