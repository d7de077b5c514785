"""What a GPT learns: the next token."""

from dataclasses import dataclass
from typing import Any

from data.mixture import Mixture
from data.phases import parse_phases
from data.sampler import BatchSampler
from data.store import TokenDataset
from utils.config import Settings
from utils.device import Device
from utils.tasks.rows import Row, row
from utils.training.baselines import bigram_baseline, uniform_baseline, unigram_baseline
from utils.training.evaluate import evaluate_all
from utils.training.objective import Objective, next_token
from utils.training.score import Score
from utils.training.teacher import objective_of
from utils.writing.defaults import SAMPLING
from utils.writing.novelty import novelty, training_words
from utils.writing.text import write_text


@dataclass(frozen=True)
class NextToken:
    """Windows of text; a score in bits per byte; a text that the model makes up."""

    settings: Settings
    mixture: Mixture

    unit = "validation tokens"
    figures: tuple[str, ...] = ()

    def sampler(self, rank: int, world_size: int, device: Device) -> BatchSampler:
        """Each step's micro-batches."""
        d, s, T = self.settings.data, self.settings.train, self.settings.model.block_size
        return BatchSampler(
            [source.train for source in self.mixture.datasets.values()],
            parse_phases(d.phases, list(self.mixture.datasets), self.mixture.weights, T),
            block_size=T,
            batch_size=s.batch_size,
            accum=s.accum,
            seed=s.seed,
            sampling=d.sampling,
            rank=rank,
            world_size=world_size,
            prefetch=device.device.type != "cpu",  # where drawing is 0.4 % of a small model's step
            pin_memory=device.device.type == "cuda",
        )

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
        """Of text that a rank's step learns from."""
        return self.settings.tokens_per_step

    def trained(self, model: Any) -> Any:
        """The model, of which all parts are trained."""
        return model

    def objective(self, teacher: Any) -> Objective:
        """What a step minimises."""
        return objective_of(self.settings.distill, teacher)

    def evaluate(
        self, model: Any, batch_size: int, device: Device, T: int = 0
    ) -> tuple[Score, dict[str, Score]]:
        """Score every source's validation split: (all together, each by name)."""
        return evaluate_all(model, next_token, self.mixture.datasets, batch_size, device, T)

    def baselines(self, T: int) -> dict[str, Row]:
        """What the score is to be seen beside."""
        data = self.mixture.combined(load=True)
        V, n_bytes = data.tokenizer.vocab_size, data.val_bytes
        counted = data.train, data.val, V, n_bytes
        scores = {"bigram": bigram_baseline(*counted), "unigram": unigram_baseline(*counted)}
        scores["uniform"] = uniform_baseline(data.val, V, n_bytes)
        return {name: row(score) for name, score in scores.items()}

    def details(self, model: Any, batch_size: int, device: Device) -> str:
        """Why bits per byte are not in the table, if they are not."""
        if self.mixture.combined().val_bytes:
            return ""
        return "\nnote: no bits per byte, for the ids do not keep the text: case, spaces, [UNK]"

    def example(self, model: Any, n: int, seed: int) -> str:
        """Text of at most n tokens that the model makes up."""
        data = self.mixture.combined()
        sampling = {**SAMPLING, "seed": seed, "end": data.end}
        return write_text(model, data.tokenizer, "", n, **sampling).strip()

    def about(self, text: str) -> str:
        """How much of such a text stands in the training text."""
        return str(novelty([text], training_words(self.mixture.datasets.values())))

    def next_command(self, run: str) -> str:
        """What to do with a run."""
        return f"python sample.py --run {run}"
