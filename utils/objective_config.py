"""What a training learns: the next token, masked tokens, or classes. Settings, without torch."""

from dataclasses import dataclass, fields
from typing import Any, Literal

from model.setting import check_choices, setting
from tok.special import BERT_TOKENS

MASKING = ("mask_rate", "mask_random", "mask_keep", "whole_words", "next_sentence")


@dataclass(frozen=True)
class ObjectiveConfig:
    """The objective decides the kind of model, too. ValueError for settings of another one."""

    objective: Literal["next", "masked", "classify"] = setting(
        "next", "what is learnt: the next token (a GPT), masked tokens or classes of texts (a BERT)"
    )
    mask_rate: float = setting(0.15, "share of the tokens that a BERT has to guess")
    mask_random: float = setting(0.1, "share of these that become random tokens, not [MASK]")
    mask_keep: float = setting(0.1, "share of these that stay as they are")
    whole_words: bool = setting(False, "mask all tokens of a word, or none")
    next_sentence: bool = setting(
        False, "also guess whether the second half of a row goes on where the first ends"
    )
    labels: int = setting(0, "learn classes from this many texts of each; 0 = all")

    def __post_init__(self) -> None:
        check_choices(self)
        if not 0 < self.mask_rate < 1:
            raise ValueError(f"mask_rate={self.mask_rate} must be between 0 and 1; BERT has 0.15")
        for name in ("mask_random", "mask_keep"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be in [0, 1], a share")
        if self.mask_random + self.mask_keep > 1:
            both = f"mask_random={self.mask_random} and mask_keep={self.mask_keep}"
            raise ValueError(f"{both} sum to more than 1; lower one, BERT has 0.1 and 0.1")
        if self.labels < 0:
            raise ValueError(f"labels={self.labels} must be 0 (all) or more")
        for f in fields(self):
            own = "masked" if f.name in MASKING else "classify"
            said = getattr(self, f.name)
            if f.name != "objective" and said != f.default and self.objective != own:
                raise ValueError(f"{f.name}={said} is of --objective {own}; leave one out")

    @property
    def kind(self) -> str:
        """The kind of model that learns it, of `model.MODELS`."""
        return "gpt" if self.objective == "next" else "bert"

    @property
    def text(self) -> dict[str, Any]:
        """What it asks of the text: special tokens, and whether each source is a class."""
        specials = BERT_TOKENS if self.kind == "bert" else ()
        return {"specials": specials, "classes": self.objective == "classify"}
