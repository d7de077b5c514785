"""What a model scores: cross-entropy, perplexity, bits per byte. Imports no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


def perplexity(loss: float) -> float:  # exercise: perplexity
    """exp(loss), loss in nats: how many equally likely tokens the model hesitates between."""
    return math.exp(loss) if loss < 700 else math.inf


@dataclass(frozen=True)
class Score:
    """Result over a split: summed nats, tokens predicted, and the bytes of text they stand for.

    Where they don't stand for a text byte by byte, as masked tokens, or with a tokenizer that loses
    case, bytes is 0. shares are what else is counted, as {"accuracy": (right, of how many)}.
    """

    nats: float
    tokens: int
    bytes: int = 0
    shares: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __add__(self, other: "Score") -> "Score":
        """The score over both splits."""
        nats, tokens = self.nats + other.nats, self.tokens + other.tokens
        added = dict(self.shares)
        for name, (right, n) in other.shares.items():
            before = added.get(name, (0, 0))
            added[name] = before[0] + right, before[1] + n
        return Score(nats, tokens, self.bytes + other.bytes, added)

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def ppl(self) -> float:
        """Perplexity per token."""
        return perplexity(self.loss)

    @property
    def bits_per_byte(self) -> float:  # exercise: bits-per-byte
        """Bits per byte of text: comparable across tokenizers, as loss and perplexity are not.

        Of a score without bytes it has no meaning: see `figures`.
        """
        return self.nats / math.log(2) / self.bytes

    @property
    def figures(self) -> dict[str, float]:
        """The shares, and bits per byte where there are bytes: {"accuracy": 0.5}."""
        bits = {"bits_per_byte": self.bits_per_byte} if self.bytes else {}
        return bits | {name: right / max(n, 1) for name, (right, n) in self.shares.items()}
