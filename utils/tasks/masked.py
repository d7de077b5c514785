"""What a BERT learns first: masked tokens, and which sentence is the next."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from data.masked import (
    MaskedBatches,
    Pairs,
    Windows,
    documents,
    pairs_in_order,
    scored,
    windows_in_order,
)
from data.masking import Masking, Vocabulary, vocabulary
from data.mixture import Mixture
from data.rows import Segments, room
from data.steps import Steps
from data.store import TokenDataset
from utils.config import Settings
from utils.device import Device
from utils.tasks.rows import Row, row
from utils.training.distill import MaskedDistillation
from utils.training.masked import masked_tokens, score_masked
from utils.training.masked_baselines import bag_of_words, masked_baselines
from utils.training.objective import Objective
from utils.training.score import Score
from utils.writing.fill import beside, read_masked


@dataclass(frozen=True)
class Masked:
    """Rows with masked tokens; loss and accuracy on them; a text with the model's guesses."""

    settings: Settings
    mixture: Mixture

    unit = "masked tokens of validation"

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What masking has to know of the tokenizer."""
        return vocabulary(self.mixture.combined().tokenizer)

    @property
    def pairs(self) -> bool:
        """Whether a row has two segments."""
        return self.settings.objective.next_sentence

    @property
    def figures(self) -> tuple[str, ...]:
        """What a score tells beside the loss."""
        return ("accuracy", "next_accuracy") if self.pairs else ("accuracy",)

    @cached_property
    def maker(self) -> Windows | Pairs:
        """Where rows come from."""
        texts, weights = list(self.mixture.datasets.values()), self.mixture.weights
        seed, T = self.settings.train.seed, self.settings.model.block_size
        if not self.pairs:
            return Windows(texts, weights, seed, room(T))
        for data in texts:
            documents(data, data.val, room(T, 2))
        return Pairs(texts, weights, seed, room(T, 2), self.vocabulary)

    @property
    def sources(self) -> list[str]:
        """Texts that are scored by themselves, too."""
        return list(self.mixture.datasets)

    @property
    def data(self) -> TokenDataset:
        """All texts as one."""
        return self.mixture.combined()

    @property
    def tokens(self) -> int:
        """Of text that a rank's step learns from, on average."""
        s = self.settings.train
        return round(s.batch_size * s.accum * self.maker.tokens)

    def sampler(self, rank: int, world_size: int, device: Device) -> Steps:
        """Each step's micro-batches."""
        o, s, T = self.settings.objective, self.settings.train, self.settings.model.block_size
        how = Masking(o.mask_rate, o.mask_random, o.mask_keep, o.whole_words)
        return Steps(
            MaskedBatches(self.maker, self.vocabulary, T, s.batch_size, how).batch,
            accum=s.accum,
            rank=rank,
            world_size=world_size,
            prefetch=device.device.type != "cpu",
            pin_memory=device.device.type == "cuda",
        )

    def trained(self, model: Any) -> Any:
        """The model, its unused parts frozen: DDP waits for gradients of all others."""
        for part in (
            model.classifier,
            *([] if self.pairs else [model.pooler, model.next_sentence]),
        ):
            if part is not None:
                part.requires_grad_(False)
        return model

    def objective(self, teacher: Any) -> Objective:
        """What a step minimises."""
        d = self.settings.distill
        if teacher is None:
            return masked_tokens
        return MaskedDistillation(teacher, d.distill_alpha, d.distill_temperature)

    def rows(self, data: TokenDataset, T: int, is_next: bool = True) -> Iterator[Segments]:
        """A validation split in order, as rows: pairs that go on, or none that does; or windows."""
        if not self.pairs:
            return windows_in_order(data.val, room(T))
        of = documents(data, data.val, room(T, 2))
        return pairs_in_order(data.val, of, room(T, 2), self.vocabulary, is_next)

    def evaluate(
        self, model: Any, batch_size: int, device: Device, T: int = 0
    ) -> tuple[Score, dict[str, Score]]:
        """Score every source's validation split: (all together, each by name)."""
        T = T or self.settings.model.block_size
        parts = {
            name: self.score(model, data, batch_size, device, T)
            for name, data in self.mixture.datasets.items()
        }
        first, *others = parts.values()
        return sum(others, first), parts

    def score(
        self, model: Any, data: TokenDataset, batch_size: int, device: Device, T: int
    ) -> Score:
        """Masked tokens of rows that go on; then, of as many that do not, only that they do not."""
        how = T, batch_size, self.vocabulary
        if not self.pairs:
            return score_masked(model, scored(self.rows(data, T), *how), device)
        true = score_masked(model, scored(self.rows(data, T), *how), device, True)
        false = score_masked(model, scored(self.rows(data, T, False), *how), device, False)
        seen = Score(0.0, 0, shares={"next_accuracy": false.shares["next_accuracy"]})
        return true + seen

    def baselines(self, T: int) -> dict[str, Row]:
        """What the score is to be seen beside."""
        data = self.mixture.combined(load=True)
        V, texts = data.tokenizer.vocab_size, list(self.mixture.datasets.values())
        rows = (self.rows(one, T) for one in texts)
        batches = (b for part in rows for b in scored(part, T, 64, self.vocabulary))
        scores = masked_baselines(data.train, batches, V)
        found = {name: row(score) for name, score in scores.items()}
        if not isinstance(self.maker, Pairs):
            return found
        true, false = (
            list(chain.from_iterable(self.rows(one, T, yes) for one in texts))
            for yes in (True, False)
        )
        is_next = np.repeat([True, False], [len(true), len(false)])
        share = bag_of_words(self.maker, [*true, *false], is_next, V)
        return found | {"bag of words": {"next_accuracy": share}}

    def details(self, model: Any, batch_size: int, device: Device) -> str:
        """Nothing that the table does not say."""
        return ""

    def example(self, model: Any, n: int, seed: int) -> str:
        """The first n tokens of the validation text, with what the model guesses in them."""
        data, T = next(iter(self.mixture.datasets.values())), self.settings.model.block_size
        batch = next(scored(self.rows(data, T), T, 1, self.vocabulary))
        guess, truth = read_masked(model, batch)
        return beside(data.tokenizer, guess[:n], truth[:n])

    def about(self, text: str) -> str:
        """What the brackets mean."""
        return "in [brackets]: what was masked and guessed; [guess|truth] where that is wrong"

    def next_command(self, run: str) -> str:
        """What to do with a run."""
        return f'python sample.py --run {run} --fill "The [MASK] ran home"'
