r"""WordPiece, BERT's tokenizer: words by BERT's rules, each the longest tokens that spell it.

    python -m tok.train --kind wordpiece data/tiny.txt --vocab 1000 --out tok/wordpiece.json
    echo "Once upon a time" | python -m tok.bpe encode --tokenizer tok/wordpiece.json

It does not keep a text as it is: white space, control characters, and by default case and accents
are lost, and a word that the vocabulary can't spell becomes [UNK].
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from operator import index

import tok.common as common
from tok.base import END_OF_TEXT, UNKNOWN, Allowed, Blocks, Documents
from tok.pieces import check_characters, check_texts
from tok.special import allowed, check_specials, special_parts
from tok.storage import blame
from tok.wordpiece.basic import Splitter
from tok.wordpiece.encode import PREFIX, Encoder
from tok.wordpiece.pair import paired
from tok.wordpiece.storage import (
    END,
    STANDARD,
    START,
    Parts,
    check_vocab,
    read_hf,
    read_vocab,
    read_wordpiece,
    save_hf,
    write_vocab,
    write_wordpiece,
)
from tok.wordpiece.train import alphabet, count_words, learn

CLOSE = frozenset(".,;:!?)]}%'’”-")  # signs that stand close to the word before them


class WordPieceTokenizer:
    """Tokens by id; one that begins with ## goes on with a word.

    special_tokens: texts that get one id each, beside [PAD], [UNK], [CLS], [SEP] and [MASK] where
    the vocabulary has them; a new id if it has none. lowercase, strip_accents (None: as lowercase
    says), cjk (each Chinese character alone): BERT's rules. A word of more than max_word characters
    is [UNK]. ValueError for a vocabulary without [UNK], or with a token that is empty or twice.
    """

    lossless = False  # decode(encode(text)) is another text; ids say less than the text does

    def __init__(
        self,
        vocab: Iterable[str],
        special_tokens: Iterable[str] = (),
        lowercase: bool = True,
        strip_accents: bool | None = None,
        cjk: bool = True,
        max_word: int = 100,
    ):
        tokens = list(vocab)
        check_vocab(tokens)
        specials = check_specials(special_tokens)
        tokens += [s for s in specials if s not in set(tokens)]
        special = {*specials, *STANDARD}
        self._parts = Parts(tokens, specials, lowercase, strip_accents, cjk, max_word)
        self.vocab = dict(enumerate(tokens))
        self.special_tokens = {t: i for i, t in enumerate(tokens) if t in special}
        ids = {t: i for i, t in enumerate(tokens) if t not in special}
        self._split = Splitter(lowercase, strip_accents, cjk)
        self._cut = self._split.cut
        unknown = self.special_tokens[UNKNOWN]
        self._encoder = Encoder(ids, self._split, unknown, max_word, common.MEMORY)
        self._text = [as_text(token) for token in tokens]

    @classmethod
    def train(
        cls,
        texts: Iterable[str | Iterable[str]],
        vocab_size: int,
        *,
        special_tokens: Iterable[str] = (END_OF_TEXT,),
        workers: int = 1,
        step: Callable[[int], object] = lambda done: None,
        lowercase: bool = True,
        min_frequency: int | None = None,
    ) -> "WordPieceTokenizer":
        """Learn a vocabulary by the likelihood score (`train.py`); smaller if no pair is left.

        [PAD], [UNK], [CLS], [SEP], [MASK] and special_tokens come first, then all characters of the
        texts, then what is learnt. Each text, a string or an iterable of its chunks, stands alone.
        `min_frequency`: see `learn`. ValueError for a vocabulary smaller than specials and
        characters. `workers` processes count words; `step(done)` is called after each token.
        """
        if min_frequency is not None and min_frequency < 1:
            raise ValueError(f"min_frequency={min_frequency}; give 1 or more, or None")
        specials = check_specials(special_tokens)
        first = [*STANDARD, *(s for s in specials if s not in STANDARD)]
        counted = count_words(check_texts(texts), Splitter(lowercase), first, workers)
        words = {word: n for word, n in sorted(counted.items()) if len(word) <= 100}
        first += alphabet(words)
        if vocab_size < len(first):
            raise ValueError(
                f"vocab_size={vocab_size} is smaller than the special tokens and the characters of "
                f"the text; give at least {len(first)}"
            )
        vocab = [*first, *learn(words, vocab_size - len(first), min_frequency, step)]
        if clash := [s for s in specials if vocab.count(s) > 1]:
            raise ValueError(f"special token {clash[0]!r} is an ordinary token too; make it longer")
        return cls(vocab, specials, lowercase)

    @property
    def vocab_size(self) -> int:
        """All tokens, special ones included."""
        return len(self.vocab)

    def encode(self, text: str, *, allowed_special: Allowed = "none") -> list[int]:
        """Text -> ids. ValueError for half a surrogate pair, which is no character.

        Special tokens are plain text unless allowed: "none", "all", or a set of them.
        """
        return common.encode(self, text, allowed_special)

    def encode_offsets(
        self, text: str, *, allowed_special: str | Collection[str] = "none"
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """The same ids, and for each its (start, end) in the text, in characters.

        "Él ran" -> [el, ran], [(0, 2), (3, 6)].
        """
        chosen = allowed(allowed_special, self.special_tokens)
        check_characters(text, 0)
        ids, spans, at = list[int](), list[tuple[int, int]](), 0
        for part, special in special_parts(text, chosen):
            found = [(self.special_tokens[part], 0, len(part))] if special else None
            for i, start, end in found or self._encoder.placed(part):
                ids.append(i)
                spans.append((at + start, at + end))
            at += len(part)
        return ids, spans

    def encode_pair(
        self, a: str, b: str | None = None, *, length: int | None = None
    ) -> tuple[list[int], list[int]]:
        """(ids, token types) of [CLS] a [SEP], or of [CLS] a [SEP] b [SEP] with type 1 from b on.

        Of more than `length` tokens the longer text loses its end first. ValueError if a text would
        lose all its tokens, or for a vocabulary without [CLS] or [SEP].
        """
        for sign in (START, END):
            if sign not in self.special_tokens:
                raise ValueError(f"the vocabulary has no {sign}; give it as a special token")
        signs = self.special_tokens[START], self.special_tokens[END]
        return paired(self.encode(a), None if b is None else self.encode(b), *signs, length)

    def encode_iter(
        self, chunks: Iterable[str], *, allowed_special: Allowed = "none"
    ) -> Iterator[int]:
        """The ids of all chunks as one text, in little memory: text is kept up to white space."""
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

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text, as far as ids tell: blanks between words, none before . , ; : ! ? and such.

        "It's  A dog." comes back as "it' s a dog.". ValueError for an unknown id.
        """
        return "".join(self.decode_stream(ids)).removeprefix(" ")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The same in UTF-8, with the blank before a first word: the ids may go on with a text."""
        return "".join(self.decode_stream(ids)).encode("utf-8")

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Text as ids come in, with the blank before a first word: it may go on with a prompt."""
        for i in map(index, ids):
            if not 0 <= i < len(self._text):
                raise ValueError(f"unknown id {i}; the vocabulary has 0 to {self.vocab_size - 1}")
            yield self._text[i]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON to read by eye, one token a line; the same tokenizer gives the same bytes."""
        write_wordpiece(path, self._parts, self.special_tokens)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "WordPieceTokenizer":
        """Read what `save` wrote. ValueError for anything else."""
        with blame(path):
            return cls(*read_wordpiece(path))

    @classmethod
    def from_vocab(
        cls,
        path: str | os.PathLike[str],
        special_tokens: Iterable[str] = (),
        *,
        lowercase: bool = True,
        strip_accents: bool | None = None,
    ) -> "WordPieceTokenizer":
        """BERT's vocab.txt, one token a line, ids from 0. It doesn't say whether it is lowercase.

        Special tokens that it does not have get the next ids. ValueError, with the lines' numbers,
        for a line that is empty or twice, or without [UNK].
        """
        with blame(path):
            return cls(read_vocab(path), special_tokens, lowercase, strip_accents)

    @classmethod
    def from_hf(cls, path: str | os.PathLike[str]) -> "WordPieceTokenizer":
        """Hugging Face's tokenizer.json. ValueError for one that works otherwise than BERT's."""
        with blame(path, "bring back a whole one"):
            return cls(*read_hf(path))

    def save_vocab(self, path: str | os.PathLike[str]) -> None:
        """Write a vocab.txt. It holds the tokens alone: not the rules, nor which are special."""
        write_vocab(path, self._parts.vocab)

    def save_hf(self, path: str | os.PathLike[str]) -> None:
        """Write a tokenizer.json for Hugging Face's tokenizers, which then gives the same ids."""
        save_hf(path, self._parts, self.special_tokens)

    def __reduce__(self) -> tuple[type["WordPieceTokenizer"], tuple[object, ...]]:
        return WordPieceTokenizer, tuple(self._parts)


def as_text(token: str) -> str:
    """A token as it stands in a text: "##ing" -> "ing", "." -> ".", "the" -> " the"."""
    if token.startswith(PREFIX):
        return token.removeprefix(PREFIX)
    return token if token in CLOSE else f" {token}"
