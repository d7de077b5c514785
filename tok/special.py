"""Special tokens: text with an id of its own, such as <|endoftext|>. Never part of a merge."""

import re
from collections.abc import Collection, Iterable, Iterator

BERT_TOKENS = ("[CLS]", "[SEP]", "[PAD]", "[MASK]")  # what a BERT's rows are made with


def check_specials(special_tokens: Iterable[str]) -> list[str]:
    """Special tokens as a list; ValueError for an empty one, a duplicate or a lone string."""
    if isinstance(special_tokens, str):
        raise ValueError(
            f"special_tokens={special_tokens!r} is one string; give [{special_tokens!r}]"
        )
    specials = list(special_tokens)
    for s in specials:
        if not isinstance(s, str) or not s:
            raise ValueError(f"special token {s!r} is not text; give strings like '<|end|>'")
        if specials.count(s) > 1:
            raise ValueError(
                f"special token {s!r} is given {specials.count(s)} times; give it once"
            )
    return specials


def allowed(choice: str | Collection[str], specials: Collection[str]) -> Collection[str]:
    """The special tokens meant by "none", "all" or a set of them; ValueError for others."""
    if isinstance(choice, str):
        if choice not in ("none", "all"):
            raise ValueError(f"allowed_special={choice!r}; give 'none', 'all' or a set of tokens")
        return specials if choice == "all" else ()
    if unknown := sorted(set(choice) - set(specials)):
        raise ValueError(f"allowed_special has {unknown[0]!r}; the tokenizer has {list(specials)}")
    return choice


def finder(specials: Collection[str]) -> "re.Pattern[str]":  # exercise: special-tokens
    """An expression that finds special tokens; where one begins another, the longer."""
    longest_first = sorted(specials, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})")


def special_parts(text: str, specials: Collection[str]) -> Iterator[tuple[str, bool]]:
    """Cut the text at special tokens: "a<|b|>c" -> a no, <|b|> yes, c no."""
    if not any(s in text for s in specials):
        yield text, False
        return
    for i, part in enumerate(finder(specials).split(text)):
        if part:
            yield part, i % 2 == 1
