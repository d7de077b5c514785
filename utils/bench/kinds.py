"""WordPiece and unigram beside Hugging Face's tokenizers: who takes part, learning and encoding."""

import copy
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tok import UnigramTokenizer, WordPieceTokenizer

Contenders = dict[str, Callable[[], object]]


def encoders(learnt: Any, text: str, workers: int, peers: bool) -> Contenders:
    """Later calls, which look words up, a fresh tokenizer's first call, and the peer.

    The peer gets lines: a text in one piece takes it twice as long.
    """
    found: Contenders = {
        "llm-tiny": lambda: sum(map(len, learnt.encode_blocks([text], workers=workers))),
        "first call": lambda: copy.copy(learnt).encode(text),
    }
    if peers:
        import tokenizers

        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "tokenizer.json")
            learnt.save_hf(file)
            peer = tokenizers.Tokenizer.from_file(file)
        found["tokenizers"] = partial(peer.encode_batch_fast, text.splitlines(keepends=True))
    return found


def learn_wordpiece(text: str, vocab: int) -> None:
    """`tokenizers` learns what it calls WordPiece: it joins by count, as BPE does."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    peer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    peer.normalizer = normalizers.BertNormalizer()
    peer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab, special_tokens=["[UNK]"], show_progress=False
    )
    peer.train_from_iterator(text.splitlines(keepends=True), trainer)


def learn_unigram(text: str, vocab: int) -> None:
    """`tokenizers` learns a unigram vocabulary, of pieces that begin with a blank."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    peer = Tokenizer(models.Unigram())
    peer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=vocab, unk_token="<unk>", show_progress=False,
                                      special_tokens=["<unk>"])  # fmt: skip
    peer.train_from_iterator(text.splitlines(keepends=True), trainer)


KINDS: dict[str, tuple[Any, Callable[[str, int], None]]] = {
    "WordPiece": (WordPieceTokenizer, learn_wordpiece),
    "unigram": (UnigramTokenizer, learn_unigram),
}


def other_kinds(
    text: str, vocab: int, workers: int, peers: bool
) -> Iterator[tuple[str, Contenders]]:
    """(work, who does it) for each kind beside BPE: learning, then encoding."""
    for name, (kind, peer) in KINDS.items():
        train: Contenders = {"llm-tiny": partial(kind.train, [text], vocab, workers=workers)}
        if peers:
            train["tokenizers"] = partial(peer, text, vocab)
        yield f"{name} train, {vocab:,} tokens", train
        yield f"{name} encode", encoders(kind.train([text], vocab), text, workers, peers)
