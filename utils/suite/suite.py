"""All that is asked of one model, or of one run's models at several steps: prepared once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.skills import SKILLS
from data.store import TokenDataset
from model import GPTConfig, TinyGPT
from tok import Tokenizer
from utils.device import Device
from utils.suite import repeat
from utils.suite.rows import Row
from utils.suite.skills import Quiz, skills_in
from utils.suite.stories import Stories

SEEN = 50_000  # tokens of each training text that are looked through for tasks


@dataclass(frozen=True)
class Subject:
    """What is known of a run's models before one is looked at."""

    config: GPTConfig
    tokenizer: Tokenizer
    end: int | None  # the id of <|endoftext|>, if they learnt from documents
    texts: Sequence[TokenDataset]  # what they learnt from, one after another; none if not known

    @property
    def known(self) -> int:
        """Ids that the tokenizer knows: a pretrained model may have more."""
        return min(self.tokenizer.vocab_size, self.config.vocab_size)

    @property
    def room(self) -> int:
        """Tokens that a model reads at once."""
        return 1 << 20 if self.config.slides else self.config.block_size

    def skills(self) -> list[str]:
        """Skills of which tasks stand in the training texts."""
        parts = [text.tokenizer.decode(text.train[:SEEN].tolist()) for text in self.texts]
        return skills_in("\n".join(parts))

    def pool(self) -> np.ndarray:
        """Ids to draw random tokens from: those of the training texts, no special ones."""
        seen = [np.unique(text.train) for text in self.texts] or [np.arange(self.known)]
        special = list(self.tokenizer.special_tokens.values())
        return np.setdiff1d(np.concatenate(seen), special)


class Suite:
    """Skills, random tokens twice over, and stories; `notes` say what does not apply, and why."""

    def __init__(self, subject: Subject, num: int, shots: int, seed: int, device: Device) -> None:
        self.subject, self.device = subject, device
        skills, self.notes = subject.skills(), list[str]()
        if not skills and not shots:
            self.notes += ["skills: not applicable: no task is in its training text; try --shots 4"]
        self.quiz = Quiz(list(SKILLS) if shots else skills, num, shots, seed)
        self.notes += self.quiz.encode(subject.tokenizer, subject.end, subject.room)
        L, self.pool = min(repeat.LONGEST, subject.config.block_size // 2), subject.pool()
        self.twice = repeat.twice(self.pool, num, L, seed) if L > 1 and len(self.pool) else None
        self.stories = self.open_stories(num, seed)

    def open_stories(self, num: int, seed: int) -> Stories | None:
        """The judge of stories, if they are of the kind that it knows."""
        if len(self.subject.texts) != 1:
            why = "it needs the text that the model learnt; give --data"
        else:
            try:
                return Stories(self.subject.texts[0], num, seed)
            except ValueError as e:
                why = str(e)
        self.notes.append(f"stories: not applicable: {why}")
        return None

    def bounds(self) -> list[Row]:
        """What chance, frequencies of pairs and the validation text reach."""
        rows = self.quiz.chance()
        rows += repeat.chance(self.pool) if self.twice is not None else []
        return rows + (self.stories.bounds() if self.stories else [])

    def measure(self, model: TinyGPT) -> list[Row]:
        """What a model reaches."""
        model.eval()
        rows = self.quiz.measure(model, self.subject.known, self.device)
        rows += repeat.measure(model, self.twice, self.device) if self.twice is not None else []
        return rows + (self.stories.measure(model) if self.stories else [])
