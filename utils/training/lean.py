"""torch's optimizers without torch._dynamo, whose import takes a second or two.

Their methods import it to tell torch.compile to pass them over. Nobody compiles them here: below
are the same methods without that wrapping.
"""

from inspect import unwrap
from typing import Any

import torch


class Optimizer(torch.optim.Optimizer):
    """torch.optim.Optimizer; a class of it brings a `step` of its own."""

    add_param_group: Any = unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad: Any = unwrap(torch.optim.Optimizer.zero_grad)
    state_dict: Any = unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict: Any = unwrap(torch.optim.Optimizer.load_state_dict)


class AdamW(Optimizer, torch.optim.AdamW):
    """torch.optim.AdamW, to the bit."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient. A closure is not supported."""
        assert closure is None
        unwrap(torch.optim.AdamW.step)(self)
