"""Strings by their characters: all pieces that begin at a position, in one walk."""

from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")
Trie = dict[str, tuple[Any, T | None]]  # character -> (the Trie of what may follow, the value here)


def trie(values: Mapping[str, T]) -> Trie[T]:
    """A trie of values that are not None. {"a": 1, "abc": 2} -> "a": 1, "ab": None, "abc": 2."""
    root: Trie[T] = {}
    for text, value in values.items():
        children = root
        for c in text[:-1]:
            children = children.setdefault(c, ({}, None))[0]
        last = children.get(text[-1])
        children[text[-1]] = (last[0] if last else {}, value)
    return root
