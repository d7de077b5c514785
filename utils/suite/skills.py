"""Tasks of data/skills.py put to a model: is its greedy answer right, how likely is the right one?

An answer counts as a whole, with the end of its line. It is read in one pass: greedy decoding
writes it if each of its tokens is the likeliest one after the question and those before it.
"""

import math
import re
from collections.abc import Iterator, Sequence

import torch

from data.skills import SKILLS, Task, examples, held_out
from model import TinyGPT
from tok import Tokenizer
from utils.device import Device
from utils.suite.rows import Row, average, rate
from utils.writing.text import start_ids

Asked = tuple[list[int], list[int]]  # ids of what is read before, ids of the answer
ROWS = 32  # at once


def skills_in(text: str) -> list[str]:
    """The skills of which tasks stand in a text, a line each."""
    return [
        name
        for name, skill in SKILLS.items()
        if re.search(rf"^{skill.word} [^=\n]+=\S+$", text, re.M)
    ]


def asked(tokenizer: Tokenizer, task: Task, shown: Sequence[Task], end: int | None) -> Asked:
    """A question after solved ones, as ids, and the ids of its answer up to the end of the line.

    It begins a line: after "\n", or at the start of a document. ValueError if the tokenizer has
    not its characters.
    """
    before = "".join(example.line + "\n" for example in shown)
    start = "\n" * (end is None) + before + task.question
    return start_ids(tokenizer, start, end), tokenizer.encode(task.answer + "\n")


@torch.no_grad()
def answers(
    model: TinyGPT, tasks: Sequence[Asked], known: int, device: Device
) -> Iterator[tuple[bool, float]]:
    """For each task whether the greedy answer is right, and -log p of the right one, in nats.

    Ids from `known` on are no token's, and are not written.
    """
    for i in range(0, len(tasks), ROWS):
        rows = tasks[i : i + ROWS]
        texts = [torch.tensor(before + answer[:-1]) for before, answer in rows]
        idx = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)  # ahead of nothing scored
        with device.autocast():
            x = model.hidden_states(idx.to(device.device))
        for states, (before, answer) in zip(x, rows, strict=True):
            with device.autocast():
                logits = model.head(states[len(before) - 1 :][: len(answer)])
            logp = logits[:, :known].float().log_softmax(-1).cpu()
            right = torch.tensor(answer)
            nats = -logp.gather(-1, right[:, None]).sum()
            yield bool((logp.argmax(-1) == right).all()), float(nats)


class Quiz:
    """Held-out tasks of some skills at each of their levels, as ids for one tokenizer."""

    def __init__(self, skills: Sequence[str], num: int, shots: int, seed: int) -> None:
        self.tasks = {
            (name, level): held_out(name, level, num, seed)
            for name in skills
            for level in SKILLS[name].levels
        }
        self.shots, self.seed = shots, seed
        self.asked: dict[tuple[str, int], list[Asked]] = {}

    def encode(self, tokenizer: Tokenizer, end: int | None, room: int) -> list[str]:
        """Make ids of all tasks that fit into `room` tokens; what is left out, and why."""
        notes = []
        for (name, level), tasks in self.tasks.items():
            shown = examples(name, level, self.shots, self.seed)
            try:
                pairs = [asked(tokenizer, task, shown, end) for task in tasks]
            except ValueError as e:
                notes.append(f"{name} {level}: not applicable: {e}")
                continue
            longest = max(len(before) + len(answer) - 1 for before, answer in pairs)
            if longest > room:
                why = f"it needs {longest} tokens, the context has {room}"
                notes.append(f"{name} {level}: not applicable: {why}")
                continue
            self.asked[name, level] = pairs
        return notes

    def chance(self) -> list[Row]:
        """What a guess scores that knows the form of an answer, and no more."""
        found = []
        for name, level in self.asked:
            options = [task.options for task in self.tasks[name, level]]
            p = sum(1 / n for n in options) / len(options)
            nats = sum(map(math.log, options)) / len(options)
            found.append(Row("exact", name, level, "chance", p))
            found.append(Row("nats", name, level, "chance", nats))
        return found

    def measure(self, model: TinyGPT, known: int, device: Device) -> list[Row]:
        """Right answers, and nats of the right ones, a pair of rows for each skill and level."""
        found = []
        for (name, level), tasks in self.asked.items():
            right, nats = zip(*answers(model, tasks, known, device), strict=True)
            found.append(rate("exact", name, level, "model", right))
            found.append(average("nats", name, level, "model", nats))
        return found
