"""What a run will take, before it is begun: parameters, tokens, memory, time."""

from utils.log import tokens_per_step
from utils.memory import resident, step_memory
from utils.step import train_step
from utils.timing import summary, take_turns


def forecast(state, settings, device, batches) -> int:
    """Print the size of a run that has begun, then how long it takes by three steps of it; 0."""
    s, tokens = settings.train, tokens_per_step(settings, state.ranks)
    print(f"parameters  {state.model.n_params():,}")
    print(f"tokens      {tokens:,} a step, {tokens * s.steps:,} in {s.steps:,} steps")
    shape = settings.optim, device, s.batch_size, s.recompute
    tensors = step_memory(state.model.config, *shape)
    if device.device.type == "cpu":
        held = resident()
        print(f"memory      {(held + tensors) / 1e6:,.0f} MB, ", end="")
        print(f"{tensors / 1e6:,.0f} of them tensors")
    else:
        print(f"memory      {tensors / 1e6:,.0f} MB of the device")
    args = state.model, state.optimizer, state.scaler, batches, device
    median, _ = summary(take_turns({"step": lambda: train_step(*args)}, runs=3, warmup=1)["step"])
    print(
        f"time        {median * 1e3:,.0f} ms a step, {median * s.steps / 60:,.1f} minutes ", end=""
    )
    print("without evaluation" if not s.minutes else f"for {s.steps:,} steps; --minutes decides")
    return 0
