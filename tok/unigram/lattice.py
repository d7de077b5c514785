"""All ways to cut a text into scored pieces: the best one, the n best, and one drawn at random.

A way scores the sum of its pieces' log-probabilities, as if pieces were drawn independently, one
after the other (Kudo 2018, arXiv 1804.10959, eq. 6). The ways are paths in a lattice: an edge is a
piece, from the position where it begins to the position where it ends.
"""

from collections.abc import Callable, Iterable, Mapping
from heapq import nlargest
from itertools import chain
from math import exp, inf, log
from operator import itemgetter
from random import Random
from typing import NamedTuple

from tok.unigram.trie import trie

Ids = tuple[int, ...]
PENALTY = 10.0  # nats below the rarest piece for a character without one, as SentencePiece has it


class Edge(NamedTuple):
    """A piece's score, in nats, and its ids: one, or those of the bytes of a character."""

    score: float
    ids: Ids


Lattice = list[list[tuple[int, Edge]]]  # for each end 1, 2, ...: (start, edge), from the left
FIRST = itemgetter(0)


class Pieces:
    """Pieces with scores; `spell` gives the ids of a character that is no piece.

    Of equal sums the way with the longest last piece is taken, and so on from the end: ends are
    reached from the left, and a later way must be strictly better. SentencePiece does the same.
    """

    def __init__(self, pieces: Mapping[str, Edge], spell: Callable[[str], Ids]):
        self.root, self.spell = trie(pieces), spell
        self.single = {text for text in pieces if len(text) == 1}
        self.unknown = min((e.score for e in pieces.values()), default=0.0) - PENALTY

    def best(self, word: str) -> tuple[Ids, float]:
        """The ids of the best way, and its score (Viterbi)."""
        sums = [0.0, *[-inf] * len(word)]
        back: list[tuple[int, Ids]] = [(0, ())] * (len(word) + 1)
        for start, c in enumerate(word):
            so_far, children, end = sums[start], self.root, start
            if c not in self.single and so_far + self.unknown > sums[start + 1]:
                sums[start + 1] = so_far + self.unknown
                back[start + 1] = start, self.spell(c)
            while end < len(word) and (node := children.get(word[end])):
                children, edge = node
                end += 1
                if edge and so_far + edge[0] > sums[end]:
                    sums[end] = so_far + edge[0]
                    back[end] = start, edge[1]
        return walk(back), sums[-1]

    def lattice(self, words: Iterable[str]) -> Lattice:
        """All edges of a text; none crosses from one word to the next."""
        ends: Lattice = []
        for word in words:
            first = len(ends)
            ends += [[] for _ in word]
            for start, c in enumerate(word):
                if c not in self.single:
                    ends[first + start].append((first + start, Edge(self.unknown, self.spell(c))))
                children, end = self.root, start
                while end < len(word) and (node := children.get(word[end])):
                    children, edge = node
                    if edge:
                        ends[first + end].append((first + start, edge))
                    end += 1
        return ends


def walk(back: list[tuple[int, Ids]]) -> Ids:
    """The ids on the way to the last end; `back` has the last edge of the way to each end."""
    found, end = [], len(back) - 1
    while end:
        end, ids = back[end]
        found.append(ids)
    return tuple(chain.from_iterable(reversed(found)))


def n_best(lattice: Lattice, n: int) -> list[tuple[Ids, float]]:
    """The n best ways with their scores, the best first: for each end the n best ways to it.

    Equal scores stand in the order of `Pieces`: those with the longest last piece first.
    """
    paths: list[list[tuple[float, int, int, Ids]]] = [[(0.0, 0, 0, ())]]  # score, start, rank, ids
    for edges in lattice:
        ways = (
            (path[0] + edge.score, start, rank, edge.ids)
            for start, edge in edges
            for rank, path in enumerate(paths[start])
        )
        paths.append(nlargest(n, ways, key=FIRST))
    return [(trace(paths, rank), path[0]) for rank, path in enumerate(paths[-1])]


def trace(paths: list[list[tuple[float, int, int, Ids]]], rank: int) -> Ids:
    """The ids of one of the best ways to the last end."""
    found, end = [], len(paths) - 1
    while end:
        _, end, rank, ids = paths[end][rank]
        found.append(ids)
    return tuple(chain.from_iterable(reversed(found)))


def log_sums(lattice: Lattice, alpha: float) -> list[float]:
    """For each end the log of the sum over all ways to it of exp(alpha x score) (forward)."""
    sums = [0.0]
    for edges in lattice:
        terms = [sums[start] + alpha * edge.score for start, edge in edges]
        top = max(terms)
        sums.append(top + log(sum(exp(t - top) for t in terms)))
    return sums


def sample(lattice: Lattice, alpha: float, random: Random) -> Ids:
    """One way, drawn with probability proportional to exp(alpha x score).

    The sums from the left, then edges drawn from the right: P(edge | the way goes through its end)
    is exp(sum at its start + alpha x score - sum at its end).
    """
    sums = log_sums(lattice, alpha)
    found, end = [], len(lattice)
    while end:
        edges = lattice[end - 1]
        weights = [exp(sums[start] + alpha * edge.score - sums[end]) for start, edge in edges]
        end, edge = random.choices(edges, weights)[0]
        found.append(edge.ids)
    return tuple(chain.from_iterable(reversed(found)))
