"""Products with few rows: a model that writes reads all its weights for each token."""

import torch
from torch import nn

ROWS = 32  # with more, nn.Linear is as fast
NUMEL = 2**17  # a smaller matrix stays in the cache, where nn.Linear is as fast


class FewRows(nn.Linear):
    """nn.Linear that reads its weight at the memory's speed where the input has few rows.

    Of a matrix times a vector torch's CPU library makes one thread's work, and slow work: all
    matrices of 6 blocks of 384 took 3.8 ms; cut in pieces, as one batched product, 1.0 ms.
    """

    pieces = 2

    def forward(self, x):
        """x W^T + b, (...,in_features) -> (...,out_features)."""
        rows, (n_out, n_in) = x.numel() // self.in_features, self.weight.shape
        if rows > ROWS or not rows or self.weight.dtype != torch.float32:
            return super().forward(x)
        each, pieces, columns = n_out // self.pieces, self.pieces, x.reshape(rows, n_in).T
        whole, rest = self.weight.split((pieces * each, n_out % pieces))
        y = torch.bmm(whole.reshape(pieces, each, n_in), columns.expand(pieces, n_in, rows))
        y = y.view(pieces * each, rows)
        y = (torch.cat((y, rest @ columns)) if len(rest) else y).T
        y = y if self.bias is None else y + self.bias
        return y.reshape(*x.shape[:-1], n_out)


def few_rows(model: nn.Module) -> nn.Module:
    """Make the large linear layers of a model on the CPU `FewRows`, in place; gives the model.

    Parameters and their names stay, results to rounding.
    """
    for layer in model.modules() if next(model.parameters()).device.type == "cpu" else ():
        if isinstance(layer, nn.Linear) and layer.weight.numel() >= NUMEL:
            layer.__class__ = FewRows
            vars(layer)["pieces"] = max(2, torch.get_num_threads())
    return model
