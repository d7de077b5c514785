"""One rank of test_parallelism.py: each way to share a model out, its bytes counted, its result.

Prints a JSON object: way -> {"sent": bytes that this rank's calls have exchanged, by operation,
"error": largest difference from one process, "held": bytes of weights and gradients and moments}.
"""

import json
from collections import Counter
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from model import GPTConfig, TinyGPT
from model.attention import attend_naive
from utils.config import OptimConfig
from utils.device import Device
from utils.distributed import Distributed, apply_fsdp, wrap_ddp
from utils.training.objective import next_token
from utils.training.optim import make_optimizer
from utils.training.step import TrainStep

CONFIG = GPTConfig(
    vocab_size=1000, block_size=192, n_layer=4, n_head=4, d_model=128, pos="rope", bias=False
)  # the model of configs/tiny_adamw.yaml
B = 6
CPU = Device(torch.device("cpu"), torch.float32)


class Traffic(TorchDispatchMode):
    """Counts the bytes of the whole tensor of each collective, by operation."""

    def __init__(self):
        super().__init__()
        self.sent = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d":
            self.sent[func._opname] += max(map(size, args))
        return func(*args, **(kwargs or {}))


def size(x):
    """Bytes of all tensors in an argument."""
    if isinstance(x, torch.Tensor):
        return x.numel() * x.element_size()
    return sum(map(size, x)) if isinstance(x, list | tuple) else 0


def build():
    torch.manual_seed(1)
    return TinyGPT(CONFIG)


def batch(seed):
    ids = torch.randint(1000, (B, 193), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1], ids[:, 1:]


def local(t):
    return t.to_local() if hasattr(t, "to_local") else t


def held(model, optimizer):
    """Bytes of this rank's weights, their gradients and their two moments."""
    weights = sum(size(local(p)) for p in model.parameters())
    moments = sum(size(local(v)) for s in optimizer.state.values() for v in s.values() if v.ndim)
    return 2 * weights + moments


def alone():
    """Weights after two steps of one process on both ranks' batches."""
    model = build()
    step = TrainStep(
        model, next_token, make_optimizer(model.parameters(), OptimConfig()), CPU.scaler(), CPU
    )
    for i in range(2):
        step([batch(2 * i), batch(2 * i + 1)])
    return model.state_dict()


def data_parallel(dist_, kind):
    """Two steps by DDP or FSDP; the second is counted."""
    model = build()
    model = apply_fsdp(model, CPU, dist_) if kind == "fsdp" else model
    optimizer = make_optimizer(model.parameters(), OptimConfig())
    traffic = Traffic()
    wrapped = wrap_ddp(model, dist_, kind)
    if kind == "ddp":
        wrapped.register_comm_hook(traffic, counted_mean)
    step = TrainStep(wrapped, next_token, optimizer, CPU.scaler(), CPU, dist=dist_)
    step([batch(dist_.rank)])
    traffic.sent.clear()
    if kind == "ddp":
        step([batch(2 + dist_.rank)])
    else:
        with traffic:
            step([batch(2 + dist_.rank)])
    other = alone()
    weights = {k: v.full_tensor() if kind == "fsdp" else v for k, v in model.state_dict().items()}
    error = max(float((weights[k] - other[k]).abs().max()) for k in other)
    return {"sent": traffic.sent, "error": error, "held": held(model, optimizer)}


def counted_mean(traffic, bucket):
    """DDP's own mean over the ranks, its bytes counted."""
    traffic.sent["allreduce_"] += size(bucket.buffer())
    future = dist.all_reduce(bucket.buffer().div_(2), async_op=True).get_future()
    return future.then(lambda done: done.value()[0])


@torch.no_grad()
def tensor_parallel(rank):
    """An MLP whose hidden units are shared out: up by rows, down by columns, one sum."""
    mlp, x = build().blocks[0].mlp, torch.randn(B, 192, 128)
    half = slice(256 * rank, 256 * (rank + 1))
    with Traffic() as traffic:
        y = mlp.act(x @ mlp.up.weight[half].T) @ mlp.down.weight[:, half].T
        dist.all_reduce(y)
    return {"sent": traffic.sent, "error": float((y - mlp(x)).abs().max())}


@torch.no_grad()
def pipeline_parallel(rank):
    """Rank 0 has the embedding and two blocks, rank 1 two blocks and the head."""
    model, (x, _) = build().eval(), batch(0)
    rope = model.rope(192, slice(192))
    stream = model.embed(x, slice(192)) if rank == 0 else torch.empty(B, 192, 128)
    with Traffic() as traffic:
        if rank == 0:
            for block in model.blocks[:2]:
                stream = block(stream, rope)
            dist.send(stream, 1)
            return {"sent": traffic.sent, "error": 0.0}
        dist.recv(stream, 0)
    for block in model.blocks[2:]:
        stream = block(stream, rope)
    logits = model.head(model.norm(stream))
    return {"sent": traffic.sent, "error": float((logits - model(x)[0]).abs().max())}


@torch.no_grad()
def sequence_parallel(rank):
    """Half of the positions each; keys and values are gathered, queries stay where they are."""
    q, k, v = torch.randn(3, B, 4, 192, 32, generator=torch.Generator().manual_seed(1))
    mine = slice(96 * rank, 96 * (rank + 1))
    both = torch.stack((k[:, :, mine], v[:, :, mine])).contiguous()
    with Traffic() as traffic:
        parts = [torch.empty_like(both) for _ in range(2)]
        dist.all_gather(parts, both)
    keys, values = torch.cat(parts[: rank + 1], 3)  # rank 0's positions see none of rank 1's
    y = attend_naive(q[:, :, mine], keys, values)
    error = float((y - attend_naive(q, k, v)[:, :, mine]).abs().max())
    return {"sent": traffic.sent, "error": error}


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    me = Distributed(dist.get_rank(), 2)
    torch.manual_seed(0)
    found = {
        "ddp": data_parallel(me, "ddp"),
        "fsdp": data_parallel(me, "fsdp"),
        "tensor": tensor_parallel(me.rank),
        "pipeline": pipeline_parallel(me.rank),
        "sequence": sequence_parallel(me.rank),
    }
    print(json.dumps(found))
    dist.destroy_process_group()
