"""What a BERT learns next: the classes of texts."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from data.labelled import LabelledBatches, Text, few, labelled, labelled_in_order, texts_of
from data.masking import Vocabulary, vocabulary
from data.mixture import Mixture
from data.steps import Steps
from data.store import TokenDataset
from utils.config import Settings
from utils.device import Device
from utils.tasks.rows import Row
from utils.tasks.tfidf import tfidf
from utils.training.masked import classes, read_only, score_classes
from utils.training.objective import Objective
from utils.training.score import Score


@dataclass(frozen=True)
class Classify:
    """Texts and their classes; loss and accuracy; a text with the class that the model sees."""

    settings: Settings
    mixture: Mixture

    unit = "validation texts"
    figures: tuple[str, ...] = ("accuracy",)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What rows are made with."""
        return vocabulary(self.mixture.combined().tokenizer)

    @property
    def names(self) -> list[str]:
        """Of the classes."""
        return list(self.mixture.datasets)

    @cached_property
    def train(self) -> list[Text]:
        """What is learnt from: `labels` texts of each class, or all."""
        n, seed = self.settings.objective.labels, self.settings.train.seed
        parts = [
            few(texts_of(data, data.train, name), n, seed)
            for name, data in self.mixture.datasets.items()
        ]
        return [(ids, label) for label, part in enumerate(parts) for ids in part]

    @cached_property
    def val(self) -> list[Text]:
        """What it is asked about."""
        parts = [texts_of(data, data.val, name) for name, data in self.mixture.datasets.items()]
        return [(ids, label) for label, part in enumerate(parts) for ids in part]

    @property
    def sources(self) -> list[str]:
        """Texts that are scored by themselves, too: none."""
        return []

    @property
    def data(self) -> TokenDataset:
        """All texts as one, of which those count as training that are learnt from."""
        data = self.mixture.combined()
        n = sum(len(ids) + 1 for ids, _ in self.train)
        return replace(data, meta={**data.meta, "train_tokens": n})

    @property
    def tokens(self) -> int:
        """Of text that a rank's step learns from, on average."""
        s = self.settings.train
        n = sum(len(ids) + 1 for ids, _ in self.train)  # with what ends a text
        return round(s.batch_size * s.accum * n / len(self.train))

    def sampler(self, rank: int, world_size: int, device: Device) -> Steps:
        """Each step's micro-batches."""
        s, T = self.settings.train, self.settings.model.block_size
        return Steps(
            LabelledBatches(self.train, self.vocabulary, T, s.batch_size, s.seed).batch,
            accum=s.accum,
            rank=rank,
            world_size=world_size,
            prefetch=device.device.type != "cpu",
            pin_memory=device.device.type == "cuda",
        )

    def trained(self, model: Any) -> Any:
        """The model, its unused parts frozen: DDP waits for gradients of all others."""
        for part in (model.head, model.next_sentence):
            part.requires_grad_(False)
        model.tok_emb.requires_grad_(True)  # which a tied head shares
        return model

    def objective(self, teacher: Any) -> Objective:
        """What a step minimises."""
        return classes

    def evaluate(
        self, model: Any, batch_size: int, device: Device, T: int = 0
    ) -> tuple[Score, dict[str, Score]]:
        """Score the validation texts of all classes together."""
        return self.scored(model, batch_size, device, T)[0], {}

    def scored(
        self, model: Any, batch_size: int, device: Device, T: int = 0
    ) -> tuple[Score, np.ndarray]:
        """The score, and how many texts of which class were taken for which."""
        T = T or self.settings.model.block_size
        batches = labelled_in_order(self.val, T, batch_size, self.vocabulary)
        return score_classes(model, batches, device)

    def baselines(self, T: int) -> dict[str, Row]:
        """Bags of words, where scikit-learn is there; the most frequent class; chance."""
        n = len(self.names)
        count, asked = (
            np.bincount([label for _, label in texts], minlength=n)
            for texts in (self.train, self.val)
        )
        p = count / count.sum()
        loss = -float(asked @ np.log(p) / asked.sum())
        most = {"val_loss": loss, "accuracy": float(asked[count.argmax()] / asked.sum())}
        chance = {"val_loss": float(np.log(n)), "accuracy": 1 / n}
        return {**self.bags_of_words(), "majority": most, "chance": chance}

    def bags_of_words(self) -> dict[str, Row]:
        """What words alone reach, learnt from the same texts, of which none is cut."""
        decode = self.mixture.combined().tokenizer.decode
        train, val = ([decode(ids.tolist()) for ids, _ in part] for part in (self.train, self.val))
        labels, truth = ([label for _, label in part] for part in (self.train, self.val))
        return tfidf(train, labels, val, truth)

    def details(self, model: Any, batch_size: int, device: Device) -> str:
        """The confusion table: a row for what texts are, a column for what they were taken for."""
        _, table = self.scored(model, batch_size, device)
        wide = max(map(len, self.names))
        lines = ["\n\nrows: what texts are; columns: what they were taken for"]
        lines.append(" " * wide + "".join(f"  {name:>{wide}}" for name in self.names))
        for name, counts in zip(self.names, table, strict=True):
            lines.append(f"{name:{wide}}" + "".join(f"  {n:>{wide},}" for n in counts))
        return "\n".join(lines)

    def example(self, model: Any, n: int, seed: int) -> str:
        """The start of a validation text, at most n tokens, and the class that the model sees."""
        ids, label = self.val[seed % len(self.val)]
        T, device = self.settings.model.block_size, model.tok_emb.weight.device
        x, padding, _ = (t.to(device) for t in labelled([(ids, label)], T, self.vocabulary))
        with read_only(model):
            p = model.classifier(model.pooler(model.hidden_states(x, padding=padding))).softmax(-1)[
                0
            ]
        text = self.mixture.combined().tokenizer.decode(ids[:n].tolist())
        seen = int(p.argmax())
        return f"{text}\n[{self.names[seen]}, {p[seen]:.0%} sure; it is {self.names[label]}]"

    def about(self, text: str) -> str:
        """Nothing more."""
        return ""

    def next_command(self, run: str) -> str:
        """What to do with a run."""
        return f"python eval.py --run {run}"
