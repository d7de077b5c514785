"""Several processes that train one model, as torchrun starts them, and the one that trains alone.

Rank r of N takes every Nth micro-batch from place r on, so that N ranks draw what one process
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


@dataclass(frozen=True)
class Ranks:
    """This process's place among `world`.

    What its methods give is the same on every rank, and every rank must call them.
    """

    rank: int = 0
    world: int = 1
    device: str = "cpu"  # where the numbers are that ranks tell each other

    @property
    def first(self) -> bool:
        """Whether this rank writes and prints."""
        return self.rank == 0

    def places(self, mine: Sequence[float]) -> list[float]:
        """Numbers of all ranks by place: [1, 3] on rank 0, [2, 4] on rank 1 -> [1, 2, 3, 4]."""
        if self.world == 1:
            return list(mine)
        own = torch.tensor(mine, dtype=torch.float64, device=self.device)
        every = [torch.empty_like(own) for _ in range(self.world)]
        torch.distributed.all_gather(every, own)
        return torch.stack(every, 1).flatten().tolist()

    def agree(self, value: float) -> float:
        """Rank 0's number, so that no two ranks decide otherwise."""
        return self.places([value])[0]

    def every(self, value: Any) -> list[Any]:
        """Each rank's value, whatever it is, in order."""
        values = [value] * self.world
        if self.world > 1:
            torch.distributed.all_gather_object(values, value)
        return values

    def reseed(self, seed: int) -> None:
        """Let every rank but the first draw otherwise from here on: dropout of its own."""
        if not self.first:
            torch.manual_seed(seed + self.rank)

    @contextmanager
    def in_turn(self):
        """Rank 0 goes first, the others after it: what it has made they find."""
        if not self.first:
            self.agree(0)
        yield
        if self.first:
            self.agree(0)


ALONE = Ranks()


@contextmanager
def joined(device: Device) -> Iterator[Ranks]:
    """Meet the other ranks that torchrun started, and part at the end; `ALONE` if it did not.

    CUDA ranks take a GPU each and talk by NCCL, others by gloo. Only rank 0 is heard on stdout.
    """
    rank, world = (int(os.environ.get(name, n)) for name, n in (("RANK", 0), ("WORLD_SIZE", 1)))
    if world == 1:
        yield ALONE
        return
    import torch.distributed as dist

    cuda = device.device.type == "cuda"
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        silent = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        with silent, redirect_stdout(silent if rank else sys.stdout):
            yield Ranks(rank, world, device.device.type)
    finally:
        dist.destroy_process_group()


def sharded(model, device: Device, ranks: Ranks):
    """Give each rank a slice of every parameter, gathered block by block where it is needed.

    FSDP (Zhao et al. 2023) by torch's fully_shard: weights, gradients and the optimizer's state
    take 1/N of the memory. It changes the model, so it comes before the optimizer. Raises
    ValueError for float16, whose scaler would have to look at all slices.
    """
    if ranks.world == 1:
        return model
    if device.dtype == torch.float16:
        raise ValueError("parallel=fsdp has no scaler for float16; use --dtype bfloat16")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.device.type, (ranks.world,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def averaged(model, ranks: Ranks, parallel: str):
    """The model to call in training: its gradients become the mean over ranks (Li et al. 2020)."""
    if ranks.world == 1 or parallel == "fsdp":  # whose blocks average by themselves
        return model
    return nn.parallel.DistributedDataParallel(model)


def sync(model, now: bool) -> None:
    """Say whether the next backward pass meets the other ranks: once a step is enough."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        model.require_backward_grad_sync = now
    elif hasattr(model, "set_requires_gradient_sync"):
        model.set_requires_gradient_sync(now)


def whole(state: Any) -> Any:
    """A state dict with its slices put together; called by all ranks at once."""
    if isinstance(state, dict):
        return {key: whole(value) for key, value in state.items()}
    return state.full_tensor().cpu() if hasattr(state, "full_tensor") else state


def sliced(value: Any, like: torch.Tensor) -> Any:
    """This rank's slice of a whole tensor, if the parameter that it belongs to is sliced."""
    if not hasattr(like, "full_tensor") or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    mesh, places = like.device_mesh, like.placements  # type: ignore[attr-defined]
    return distribute_tensor(value.to(like.device), mesh, places)
