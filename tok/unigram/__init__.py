r"""Unigram: a text is cut into the pieces that make it most probable. Knows nothing of models.

    python -m tok.unigram import spiece.model --out tok/mine.json    # or a tokenizer.json

Each piece has a probability, learnt by EM (`train.py`); a text is cut into words, and a word takes
the way through its lattice with the greatest product (`lattice.py`). Characters that no piece has
are spelt in UTF-8 bytes, so that any text comes back without loss.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf
from random import Random

import tok.common as common
from tok.base import END_OF_TEXT, Allowed, Blocks, Documents
from tok.bpe.pretokenize import Splitter
from tok.bpe.train import count_words
from tok.pieces import check_characters, check_texts
from tok.special import check_specials
from tok.storage import blame
from tok.unigram.encode import Encoder, fused
from tok.unigram.interop import read_hf, save_hf
from tok.unigram.lattice import Edge, Ids, Pieces, n_best, sample
from tok.unigram.normalize import Normalizer
from tok.unigram.sentencepiece import read_sentencepiece
from tok.unigram.storage import Parts, laid_out, read_unigram, vocabulary, write_unigram
from tok.unigram.train import learn


def whole(text: str) -> int:
    """Where a text may be cut that is normalized as a whole: nowhere but at its beginning."""
    return 0


class UnigramTokenizer:
    """256 bytes, then pieces, then special tokens; imported ones have ids in another order.

    vocab: id -> bytes; scores: piece -> log-probability; special_tokens: texts with one id each.
    Make one by `train`, `from_pieces`, `load`, `from_hf` or `from_sentencepiece`.
    """

    lossless = True  # once trained; an imported one may change texts, or lack characters

    def __init__(self, parts: Parts):
        self.vocab = vocabulary(parts)
        self.lossless = not parts.normalizer and parts.unknown is None
        self.special_tokens = dict(parts.special_tokens)
        self.pattern = parts.pattern
        self.scores = {t: score for t, (_, score) in parts.pieces.items() if score is not None}
        self._parts, self._split = parts, Splitter(parts.pattern)
        self._normalize = Normalizer(parts.normalizer)
        self._cut = whole if parts.normalizer else self._split.cut
        edges = {t: Edge(score, (parts.pieces[t][0],)) for t, score in self.scores.items()}
        self._pieces = Pieces(edges, self._spell)
        how = self._pieces, self._split, self._normalize, parts.unknown
        self._encoder = Encoder(*how, common.MEMORY)

    @classmethod
    def from_pieces(
        cls,
        pieces: Mapping[str, float],
        special_tokens: Iterable[str] = (),
        pattern: str = "spaces",
    ) -> "UnigramTokenizer":
        """Pieces with scores of your own, and bytes for the characters that none of them is.

        ValueError for no piece, and for a score that is not finite.
        """
        return cls(laid_out(dict(pieces), check_specials(special_tokens), pattern))

    @classmethod
    def train(
        cls,
        texts: Iterable[str | Iterable[str]],
        vocab_size: int,
        *,
        special_tokens: Iterable[str] = (END_OF_TEXT,),
        pattern: str = "spaces",
        workers: int = 1,
        step: Callable[[int], object] = lambda done: None,
    ) -> "UnigramTokenizer":
        """Learn pieces until there are vocab_size ids; fewer if the text gives no more.

        All characters of the texts are pieces; a piece crosses neither from one text to the next
        nor from one word to the next. ValueError for a vocabulary smaller than bytes, characters
        and special tokens, and for texts without a character. `workers` processes count words;
        `step(done)` is called after each round with the pieces found.
        """
        specials = check_specials(special_tokens)
        words = count_words(check_texts(texts), Splitter(pattern), specials, workers)
        characters = set().union(*words)
        if not characters:
            raise ValueError("the text is empty; give at least one character")
        wide = sum(not c.isascii() for c in characters)  # the others are bytes
        least = 256 + wide + len(specials)
        if vocab_size < least:
            raise ValueError(
                f"vocab_size={vocab_size} is smaller than 256 bytes + {wide} characters + "
                f"{len(specials)} special tokens; give at least {least}"
            )
        pieces = learn(words, vocab_size - least + len(characters), step)
        return cls.from_pieces(pieces, specials, pattern)

    @property
    def vocab_size(self) -> int:
        """Bytes, pieces and special tokens together."""
        return len(self.vocab)

    def encode(self, text: str, *, allowed_special: Allowed = "none") -> list[int]:
        """Text -> ids. ValueError for half a surrogate pair, which is no character.

        Special tokens are plain text unless allowed: "none", "all", or a set of them.
        """
        return common.encode(self, text, allowed_special)

    def encode_iter(
        self, chunks: Iterable[str], *, allowed_special: Allowed = "none"
    ) -> Iterator[int]:
        """The ids of all chunks as one text, in little memory beside the largest chunk.

        Text is kept up to where a word surely ends; a pattern that promises no such place must hold
        all of it.
        """
        return common.encode_iter(self, chunks, allowed_special)

    def encode_blocks(
        self, chunks: Iterable[str], *, allowed_special: Allowed = "none", workers: int = 1
    ) -> Blocks:
        """The ids of all chunks as one text, in arrays of uint16, or uint32 above 65,536 ids.

        For large files: `workers` processes share the work, and the ids come in order.
        """
        return common.encode_blocks(self, chunks, allowed_special, workers)

    def encode_documents(
        self, documents: Documents, *, end: int | None = None, workers: int = 1
    ) -> Blocks:
        """The ids of each document by itself, then `end`, in arrays of uint16 or uint32.

        A document is a string or an iterable of its chunks, read to its end before the next, so it
        may be larger than memory. Special tokens in it are plain text.
        """
        return common.encode_documents(self, documents, end, workers)

    def n_best(self, text: str, n: int) -> list[tuple[list[int], float]]:
        """The n best ways to write a text, with their log-probabilities, the best first.

        Fewer if there are fewer. ValueError for n below 1.
        """
        if n < 1:
            raise ValueError(f"n={n}; give 1 or more")
        lattice = self._pieces.lattice(self._words(text))
        return [(fused(ids, self._parts.unknown), score) for ids, score in n_best(lattice, n)]

    def sample(self, text: str, *, alpha: float, seed: int) -> list[int]:
        """One way to write a text, drawn with probability in proportion to exp(alpha x score).

        Subword regularization (Kudo 2018, section 3.3): alpha 0 draws all ways alike, 1 as the
        model has it, a large one takes the best.
        """
        ids: list[int] = []
        if not 0 <= alpha < inf:
            raise ValueError(f"alpha={alpha}; give 0 or more")
        random = Random(seed)
        for word in self._words(text):
            ids += sample(self._pieces.lattice([word]), alpha, random)
        return fused(ids, self._parts.unknown)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text; bytes that are not UTF-8 become U+FFFD. ValueError for an unknown id."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Ids -> bytes, exactly. ValueError for an unknown id."""
        return common.decode_bytes(self.vocab, ids)

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Text as ids come in, whole characters only; together it is `decode(ids)`."""
        return common.decode_stream(self.vocab, ids)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON to read by eye, one piece a line; the same tokenizer gives the same bytes."""
        write_unigram(path, self._parts, self.vocab_size)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "UnigramTokenizer":
        """Read what `save` wrote. ValueError for anything else."""
        with blame(path):
            parts, size = read_unigram(path)
            made = cls(parts)
            if made.vocab_size != size:
                raise ValueError(f"{made.vocab_size} ids, not the {size} promised; train it again")
            return made

    @classmethod
    def from_hf(cls, path: str | os.PathLike[str]) -> "UnigramTokenizer":
        """Hugging Face's tokenizer.json. ValueError for what ours can't do exactly so."""
        with blame(path, "bring back a whole one"):
            return cls(read_hf(path))

    @classmethod
    def from_sentencepiece(cls, path: str | os.PathLike[str]) -> "UnigramTokenizer":
        """SentencePiece's .model file: its ids, its way with blanks, its rules for characters.

        So it is lossless only where SentencePiece is; texts come back as it reads them, the blank
        in front included. ValueError for a file that is damaged, or no unigram model.
        """
        with blame(path, "bring back a whole one"):
            return cls(read_sentencepiece(path))

    def save_hf(self, path: str | os.PathLike[str]) -> None:
        """Write a tokenizer.json for Hugging Face's tokenizers, which then gives the same ids."""
        save_hf(path, self._parts, self._split.expression, self.vocab_size)

    def __reduce__(self) -> tuple[type["UnigramTokenizer"], tuple[Parts]]:
        return UnigramTokenizer, (self._parts,)

    def _spell(self, char: str) -> Ids:
        found = [self._parts.bytes[b] for b in char.encode("utf-8")]
        if None not in found:
            return tuple(i for i in found if i is not None)
        if self._parts.unknown is not None:
            return (self._parts.unknown,)
        raise ValueError(f"the vocabulary has no piece for {char!r}; leave it out")

    def _words(self, text: str) -> list[str]:
        check_characters(text, 0)
        return self._split.words(self._normalize(text))
