"""The processes that torchrun starts to train one model, and the single one that trains alone.

Rank r of N takes every Nth micro-batch from the r-th on, so that N ranks draw what one process
with N times the accumulation draws. Alone, nothing of torch.distributed is imported or called.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from utils.device import Device

State = dict[str, Any]


@dataclass(frozen=True)
class Distributed:
    """This process's rank among `world_size`. Every rank must call a method for one to return."""

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"  # where the numbers are that ranks exchange

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def all_gather(self, values: Sequence[float]) -> list[list[float]]:
        """Numbers of all ranks: [1, 3] on rank 0, [2, 4] on rank 1 -> [[1, 3], [2, 4]]."""
        if self.world_size == 1:
            return [list(values)]
        own = torch.tensor(values, dtype=torch.float64, device=self.device)
        every = [torch.empty_like(own) for _ in range(self.world_size)]
        torch.distributed.all_gather(every, own)
        return torch.stack(every).tolist()

    def broadcast(self, values: Sequence[float]) -> list[float]:
        """Rank 0's numbers, so that no two ranks decide differently."""
        return self.all_gather(values)[0]

    def gather_objects(self, value: Any) -> list[Any]:
        """Each rank's value, whatever it is, in order."""
        values = [value] * self.world_size
        if self.world_size > 1:
            torch.distributed.all_gather_object(values, value)
        return values

    def reseed(self, seed: int) -> None:
        """Give every rank but the main one dropout of its own from here on."""
        if not self.is_main:
            torch.manual_seed(seed + self.rank)

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """The others wait until rank 0 is done, and find what it has made."""
        if not self.is_main:
            self.broadcast([0])
        yield
        if self.is_main:
            self.broadcast([0])


SINGLE = Distributed()


@contextmanager
def start_processes(device: Device) -> Iterator[Distributed]:
    """Join the ranks that torchrun started, and leave at the end; `SINGLE` if it did not.

    CUDA ranks take a GPU each and talk by NCCL, others by gloo. Only rank 0 prints to stdout.
    """
    rank, world = (int(os.environ.get(name, n)) for name, n in (("RANK", 0), ("WORLD_SIZE", 1)))
    if world == 1:
        yield SINGLE
        return
    import torch.distributed as dist

    cuda = device.device.type == "cuda"
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        null = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        with null, redirect_stdout(null if rank else sys.stdout):
            yield Distributed(rank, world, device.device.type)
    finally:
        dist.destroy_process_group()


def apply_fsdp(model: nn.Module, device: Device, dist: Distributed) -> nn.Module:
    """Shard every parameter over the ranks, gathered block by block where it is needed.

    FSDP (Zhao et al. 2023) by torch's fully_shard: weights, gradients and the optimizer's state
    take 1/N of the memory. It changes the model, so it comes before the optimizer. Raises
    ValueError for float16, whose scaler would have to look at all shards.
    """
    if dist.world_size == 1:
        return model
    if device.dtype == torch.float16:
        raise ValueError("parallel=fsdp has no scaler for float16; use --dtype bfloat16")
    if device.device.type == "cpu" and not hasattr(torch.cpu.Stream, "record_event"):
        raise ValueError(f"parallel=fsdp on a CPU needs a newer torch than {torch.__version__}")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.device.type, (dist.world_size,))
    for block in model.blocks:  # type: ignore[union-attr]
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)  # type: ignore[return-value]


def is_sharded(model: nn.Module) -> bool:
    """Whether `apply_fsdp` has sharded the model."""
    return hasattr(model, "set_requires_gradient_sync")


def wrap_ddp(model: nn.Module, dist: Distributed, parallel: str) -> nn.Module:
    """The model to call in training: its gradients become the mean over ranks (Li et al. 2020)."""
    if dist.world_size == 1 or parallel == "fsdp":  # whose blocks average by themselves
        return model
    return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)  # constants


def sync_gradients(model: nn.Module, now: bool) -> None:
    """Say whether the next backward pass averages over the ranks: once a step is enough."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        model.require_backward_grad_sync = now
    elif is_sharded(model):
        model.set_requires_gradient_sync(now)  # type: ignore[operator]


def full_state(model: nn.Module, optimizer: Any) -> tuple[State, State]:
    """State dicts of model and optimizer, put together of all shards; only on the main process.

    The same as without sharding: the optimizer's counts parameters, where torch.distributed's names
    them. All ranks call it.
    """
    if not is_sharded(model):
        return model.state_dict(), optimizer.state_dict()
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state: Any  # {} but on the main process
    weights, state = get_state_dict(model, optimizer, options=options)
    names = [name for group in state.get("param_groups", []) for name in group["params"]]
    number = {name: i for i, name in enumerate(names)}
    groups = [
        {**group, "params": [number[name] for name in group["params"]]}
        for group in state.get("param_groups", [])
    ]
    values = {number[name]: value for name, value in state.get("state", {}).items()}
    return weights, {"state": values, "param_groups": groups}


def load_full_state(model: nn.Module, optimizer: Any, weights: State, state: State) -> None:
    """Undo `full_state`: every rank takes its shard of what the main process holds."""
    if not is_sharded(model):
        model.load_state_dict(weights)
        optimizer.load_state_dict(state)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

    name = {id(p): name for name, p in model.named_parameters()}
    names = [name[id(p)] for group in optimizer.param_groups for p in group["params"]]
    named = {
        "state": {names[i]: value for i, value in state["state"].items()},
        "param_groups": [
            {**group, "params": [names[i] for i in group["params"]]}
            for group in state["param_groups"]
        ],
    }
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    parts = {"model_state_dict": weights, "optim_state_dict": named}
    set_state_dict(model, optimizer, **parts, options=options)
