"""One text or several, weighted, under one tokenizer: prepared and opened together."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

import tok
from data import hashes
from data.classes import class_texts
from data.encode import make_tokenizer
from data.hashes import clean_sha256, remembered, sha256
from data.phases import check_weights, parse_counts
from data.prepare import prepared
from data.store import TokenDataset, open_dataset
from data.text import documents, split_text, text_file, unescape
from tok import END_OF_TEXT
from tok.workers import workers_for


@dataclass(frozen=True)
class Mixture:
    """Texts of one tokenizer, {name: TokenDataset}, and the whole weight of each, in order."""

    datasets: dict[str, TokenDataset]
    weights: tuple[int, ...]

    def combined(self, load: bool = False) -> TokenDataset:
        """All as one TokenDataset: counts added up, hashes joined; a single one is itself.

        Ids are those of the first text, or with `load` (all in memory) of one after another.
        """
        datasets = list(self.datasets.values())
        first, metas = datasets[0], [dataset.meta for dataset in datasets]
        if len(datasets) == 1:
            return first
        added = [k for k in first.meta if k == "documents" or k.endswith(("_tokens", "_bytes"))]
        meta = {**first.meta, **{k: sum(m[k] for m in metas) for k in added}}
        overlaps = [m.get("val_overlap", 0.0) * m["val_tokens"] for m in metas]
        meta["val_overlap"] = sum(overlaps) / meta["val_tokens"]
        meta["name"], meta["sources"] = " ".join(self.datasets), list(self.datasets)
        meta["text_sha256"] = sha256("".join(m["text_sha256"] for m in metas).encode())
        if not load:
            return replace(first, meta=meta)
        train = np.concatenate([dataset.train for dataset in datasets])
        val = np.concatenate([dataset.val for dataset in datasets])
        return replace(first, meta=meta, train=train, val=val)


def parse_mixture(data: str, mixture: str) -> dict[str, int]:
    """Paths and weights: those of "a.txt=3 b.txt=1", or `data` alone. ValueError for twins."""
    weights = parse_counts(mixture, "mixture") or {data: 1}
    check_weights(tuple(weights.values()), "mixture")
    names = [Path(path).stem for path in weights]
    if len(set(names)) < len(names):
        raise ValueError(f"mixture: two sources of one name in {', '.join(names)}; rename a file")
    return weights


def loads(path: Path) -> bool:
    """Whether a tokenizer's file is there and whole."""
    try:
        tok.load(path)
    except (OSError, ValueError):
        return False
    return True


def common_tokenizer(
    paths: Sequence[str],
    tokenizer: str,
    vocab: int,
    doc_sep: str,
    scratch: str | Path | None,
    specials: Sequence[str] = (),
) -> str:
    """A tokenizer's file for all: the given one, a prepared source's, or one trained on them all.

    Merges are learnt from the training texts only; characters of validation have ids, too.
    """
    own = [Path(p) / "tokenizer.json" for p in paths if Path(p, "meta.json").exists()]
    if Path(tokenizer).is_file() or own:
        return str(own[0] if own else tokenizer)
    texts = [remembered(Path(p), clean_sha256, keep=not scratch) for p in paths]
    kind = " ".join([tokenizer, *specials])
    key = sha256(json.dumps([texts, kind, vocab, doc_sep]).encode())
    path = Path(scratch or hashes.CACHE) / f"tokenizer-{key[:12]}.json"
    if not loads(path):
        train, val = zip(*(split_text(text_file(p), doc_sep) for p in paths), strict=True)
        made = make_tokenizer(
            tokenizer,
            vocab,
            chain.from_iterable(documents(text, doc_sep) for text in train),
            chain.from_iterable(documents(text, doc_sep) for text in val),
            ends=True,
            workers=workers_for(sum(Path(p).stat().st_size for p in paths)),
            specials=specials,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        made.save(path)
    return str(path)


def open_mixture(
    data: str,
    *,
    mixture: str = "",
    tokenizer: str = "bpe",
    vocab: int = 1000,
    doc_sep: str = END_OF_TEXT,
    scratch: str | Path | None = None,
    specials: Sequence[str] = (),
    classes: bool = False,
) -> Mixture:
    """Prepare and open every text of `mixture`, or `data` alone. A name is a path without ending.

    What must be made lies in the cache, or in the directory `scratch`; a tokenizer that is made has
    `specials`, too. With `classes` each text is one (`data.classes`). ValueError if two were
    prepared with different tokenizers, or one is too short to be scored.
    """
    sep = unescape(doc_sep)
    weights = class_texts(data, mixture, sep, scratch) if classes else parse_mixture(data, mixture)
    if len(weights) > 1:
        tokenizer = common_tokenizer(list(weights), tokenizer, vocab, sep, scratch, specials)
    how: dict[str, Any] = {"tokenizer": tokenizer, "vocab": vocab, "doc_sep": doc_sep}
    datasets: dict[str, TokenDataset] = {}
    for path in weights:
        made = prepared(path, **how, scratch=scratch, specials=specials)
        datasets[Path(path).stem] = open_dataset(made, keep=not scratch)
    if len({dataset.meta["tokenizer_sha256"] for dataset in datasets.values()}) > 1:
        raise ValueError(
            f"{', '.join(datasets)} have different tokenizers; "
            "prepare them with one --tokenizer FILE"
        )
    for dataset in datasets.values():
        check_length(dataset)
    return Mixture(datasets, tuple(weights.values()))


def check_length(data: TokenDataset) -> None:
    """Raise ValueError unless each split has a token and its target."""
    for split, tokens in ("training", data.train), ("validation", data.val):
        if len(tokens) < 2:
            name = data.meta["name"] or data.path
            found = f"the {split} text has {len(tokens)} tokens"
            raise ValueError(f"{name}: {found}; give a longer text")
