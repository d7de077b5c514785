"""What is served: runs under their names, each with its tokenizer and what its texts need."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from data.store import end_id
from model import TinyGPT
from model.adapt.quant import count
from tok import Tokenizer
from utils.hub.pretrained import Pretrained, ends, read_pretrained
from utils.runs import run_dir
from utils.training.checkpoint import model_config
from utils.training.models import base_model, load_model
from utils.writing.chat import Marked, ends_of_turn
from utils.writing.template import ChatTemplate
from utils.writing.text import start_ids

BASE = ":base"  # NAME:base is the run NAME without its adapters


@dataclass(frozen=True)
class Served:
    """One model, and everything that turns its texts into ids and back.

    `end` is the id of <|endoftext|> if the model learnt from documents; `chat_ends` are the ids
    that end an answer.
    """

    name: str
    model: TinyGPT
    tokenizer: Tokenizer
    end: int | None
    created: int
    pretrained: Pretrained | None = None
    template: ChatTemplate | None = None
    chat_ends: frozenset[int] = frozenset()

    @property
    def known(self) -> int:
        """Ids below it are known to model and tokenizer."""
        return min(self.tokenizer.vocab_size, self.model.config.vocab_size)

    @property
    def ends(self) -> frozenset[int]:
        """Ids that end a text that is written on: <|endoftext|>, and an imported model's eos."""
        eos = self.tokenizer.special_tokens.get(self.special("eos") or "")
        return frozenset(i for i in (self.end, eos) if i is not None)

    @property
    def context(self) -> int:
        """The most tokens that a text may have."""
        return self.model.config.block_size

    def start(self, text: str) -> list[int]:
        """Ids of a text to go on from, as sample.py has them."""
        return start_ids(self.tokenizer, text, self.end)

    def unseen(self, text: str) -> int:
        """Ids at the start of a text that nobody typed: <|endoftext|>, or what stands for ""."""
        return int(self.end is not None or not text)

    def encode(self, text: str) -> list[int]:
        """Ids of a text in which special tokens are meant: they are read as such."""
        return self.tokenizer.encode(text, allowed_special="all")

    def text(self, ids: Sequence[int]) -> str:
        """What ids say. ValueError for one that is not known."""
        return self.tokenizer.decode(ids)

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """The text of a conversation up to its next answer; what was typed is marked.

        Raises ValueError for a run that has no chat template, or one that refuses.
        """
        if self.template is None:
            raise ValueError(f"{self.name} has no chat template; use /v1/completions")
        mark = Marked(self.tokenizer).mark
        return self.template([{**m, "content": mark(m["content"])} for m in messages])

    def chat_ids(self, rendered: str) -> list[int]:
        """Ids of what `render` gave."""
        return Marked(self.tokenizer).ids(rendered)

    def special(self, kind: str) -> str | None:
        """The text of the bos or eos token, as an exported directory has it."""
        return ends(self.tokenizer, self.pretrained or Pretrained(self.name)).get(kind)


def load_served(name: str, device: torch.device, which: str = "best") -> list[Served]:
    """A run to be served; two of them where it has adapters, with and without."""
    path = run_dir(name)
    model, tokenizer, checkpoint = load_model(path, which)
    pretrained = read_pretrained(path)
    text = pretrained.chat_template if pretrained else None
    template = ChatTemplate(text, pretrained.bos, pretrained.eos) if pretrained and text else None
    ends = ends_of_turn(template, Marked(tokenizer)) if template else set()
    made = partial(
        Served,
        tokenizer=tokenizer,
        end=end_id(checkpoint["data"], tokenizer),
        created=int((path / f"{which}.pt").stat().st_mtime),
        pretrained=pretrained,
        template=template,
        chat_ends=frozenset(ends),
    )
    served = [made(path.name, model.to(device).eval())]
    if checkpoint.get("base"):
        served.append(made(path.name + BASE, bare(checkpoint, path).to(device).eval()))
    return served


def bare(checkpoint: dict[str, Any], path: Path) -> TinyGPT:
    """The model that a run's adapters stand on; its weights are mapped from the same file."""
    return base_model(checkpoint["base"], model_config(checkpoint), path.parent)


def load_all(
    names: Sequence[str], device: torch.device, say: Callable[[str], object]
) -> dict[str, Served]:
    """Runs by name. ValueError where two have one name."""
    served: dict[str, Served] = {}
    for name in names:
        for one in load_served(name, device):
            if one.name in served:
                raise ValueError(f"two runs are called {one.name}; rename one, or serve it alone")
            served[one.name] = one
            say(f"{one.name}: {count(one.model):,} parameters, {one.context} tokens")
    return served
