"""What a run will take, before it is begun: parameters, tokens, memory, time."""

from functools import partial

from utils.bench.timing import summary, take_turns
from utils.config import Settings
from utils.device import memory_advice, pick_device
from utils.distributed import start_processes
from utils.session import Session
from utils.training.evaluate import evaluate
from utils.training.memory import resident, step_memory
from utils.training.objective import next_token
from utils.training.step import TrainStep
from utils.training.teacher import config_of, objective_of


def forecast(settings: Settings, scratch: str) -> int:
    """Print the size of a run, then how long it takes by three steps of it; 0.

    What has to be made for that is left in the directory `scratch`.
    """
    s = settings.train
    device = pick_device(s.device, s.dtype)
    with memory_advice(s.batch_size, s.accum), start_processes(device) as dist:
        session = Session(settings, device, dist, scratch=scratch)
        device = session.device
        state, tokens = session.state, settings.tokens_per_step * dist.world_size
        print(f"device      {device.describe()}")
        if cost := device.cost():
            print(f"note        {cost}")
        print(f"parameters  {state.model.n_params():,}")
        if session.teacher:
            print(f"teacher     {session.teacher.n_params():,} parameters, which are only read")
        print(f"tokens      {tokens:,} a step, {tokens * s.steps:,} in {s.steps:,} steps")
        shape = settings.optim, device, s.batch_size, s.recompute, settings.lora
        distill = settings.distill, config_of(session.teacher)
        tensors = step_memory(state.model.config, *shape, *distill, settings.quantize)
        if device.device.type == "cpu":
            held = (resident() + tensors) / 1e6
            print(f"memory      {held:,.0f} MB, {tensors / 1e6:,.0f} of them tensors")
        else:
            print(f"memory      {tensors / 1e6:,.0f} MB of the device")
        batches, parts = session.sampler.draw(0), (state.optimizer, state.scaler, device)
        step = TrainStep(state.model, objective_of(settings.distill, session.teacher), *parts)
        times = take_turns({"step": lambda: step(batches)}, runs=3, warmup=1)["step"]
        median, _ = summary(times)
        minutes = median * s.steps / 60
        until = f"for {s.steps:,} steps" + ("; --minutes decides" if s.minutes else "")
        print(f"time        {median * 1e3:,.0f} ms a step, {minutes:,.1f} minutes {until}")
        print(f"evaluation  {evaluation(session)}")
    return 0


def evaluation(session: Session) -> str:
    """How long scoring the validation split takes, and how often, by its first windows."""
    s, T = session.settings.train, session.settings.model.block_size
    data = session.data
    n = min(len(data.val), s.batch_size * T + 1)
    where = data.meta["val_bytes"], s.batch_size, session.device
    score = partial(evaluate, session.state.model, next_token, data.val[:n], *where)
    median, _ = summary(take_turns({"score": score}, runs=2, warmup=1)["score"])
    minutes = median * data.meta["val_tokens"] / n / 60
    times = -(-s.steps // s.eval_every)
    return f"{times} x {minutes * 60:,.1f} s, {times * minutes:,.1f} minutes in all"
