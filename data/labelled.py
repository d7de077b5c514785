"""Batches of texts that belong to classes: to train, drawn by number; to score, in order.

Each text is a document of its class's token file, cut to what a row has room for. Letters: B rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data.masking import Vocabulary
from data.permutation import keys_of, permuted
from data.rows import laid_out, room
from data.steps import Tensors
from data.store import TokenDataset

Text = tuple[np.ndarray, int]  # ids of a text, and the number of its class


def texts_of(data: TokenDataset, tokens: np.ndarray, name: str) -> list[np.ndarray]:
    """The documents of a class's split. ValueError if there are none, or the class is one text."""
    end = -1 if data.end is None else data.end
    parts = np.split(tokens, np.flatnonzero(tokens == end))
    found = [part[part != end].astype(np.int64) for part in parts]
    found = [part for part in found if len(part)]
    if end < 0 or not found:
        n = data.meta["documents"]
        raise ValueError(
            f"the class {name!r} has {n} text{'s' * (n != 1)}, too few to learn from some and to "
            "be asked about others; give more, and set doc_sep to what divides them"
        )
    return found


def few(texts: Sequence[np.ndarray], n: int, seed: int) -> list[np.ndarray]:
    """n of the texts, or all for n = 0; which, the seed decides. ValueError for more than all."""
    if n > len(texts):
        raise ValueError(f"labels={n}, but a class has {len(texts)} texts; lower it")
    order = np.random.default_rng((seed, len(texts))).permutation(len(texts))
    return [texts[i] for i in order[: n or len(texts)]]


@dataclass(frozen=True)
class LabelledBatches:
    """batch(number) -> x, padding (B,T), labels (B,); each text once per epoch, in a new order."""

    texts: Sequence[Text]
    vocabulary: Vocabulary
    block_size: int
    batch_size: int
    seed: int

    def batch(self, number: int) -> Tensors:
        """Micro-batch `number` of the run, counted over all ranks."""
        n, rows = len(self.texts), []
        for i in range(number * self.batch_size, (number + 1) * self.batch_size):
            epoch, k = divmod(i, n)
            rows.append(self.texts[permuted(k, n, keys_of(self.seed, epoch))])
        return labelled(rows, self.block_size, self.vocabulary)


def labelled(texts: Sequence[Text], T: int, v: Vocabulary) -> Tensors:
    """Texts with their classes as x, padding (B,T), labels (B,)."""
    most = room(T)
    rows = laid_out([(ids[:most],) for ids, _ in texts], T, v)
    labels = torch.tensor([label for _, label in texts])
    return torch.from_numpy(rows.ids), torch.from_numpy(rows.padding), labels


def labelled_in_order(
    texts: Sequence[Text], T: int, batch_size: int, v: Vocabulary
) -> Iterator[Tensors]:
    """All of them in order, each once."""
    for i in range(0, len(texts), batch_size):
        yield labelled(texts[i : i + batch_size], T, v)
