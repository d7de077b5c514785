"""The head and its loss in one: most of a step's memory is logits where the vocabulary is large."""

import torch
from torch.nn import functional as F

FUSED = hasattr(F, "linear_cross_entropy")  # torch 2.12 and later
LARGE = 2048  # tokens in the vocabulary; below, logits cost little and the fused way gains no time


def head_loss(x, weight, targets):
    """Mean cross-entropy (nats) of the logits x weight^T: x (N,C), weight (V,C), targets (N,).

    A target of -1 does not count. In float32 on a CPU, with a large vocabulary, torch's fused
    function makes logits and gradients of 256 places at a time: a GPT-2 small step of 4 x 256
    tokens needs 0.5 GB less, in no more time. It does not know autocast and does not compile.
    """
    plain = torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type)
    if FUSED and not plain and x.device.type == "cpu" and len(weight) >= LARGE:
        options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=256, chunking_method=None)
        return F.linear_cross_entropy(x, weight, targets, ignore_index=-1, options=options)
    return F.cross_entropy(F.linear(x, weight), targets, ignore_index=-1)
