"""One text or several, weighted, under one tokenizer: opened together, fed together."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from data import prepare
from data.feed import Feed, check_weights, pairs, phases_of
from data.loader import Prepared, check_length, open_prepared
from data.prepare import END, documents, prepared, read_text, sha256, split_text, unescape


def weights_of(data: str, mixture: str) -> dict[str, int]:
    """Paths and weights: those of "a.txt=3 b.txt=1", or `data` alone. ValueError for twins."""
    weights = pairs(mixture, "mixture") or {data: 1}
    check_weights(tuple(weights.values()), "mixture")
    names = [Path(path).stem for path in weights]
    if len(set(names)) < len(names):
        raise ValueError(f"mixture: two sources of one name in {', '.join(names)}; rename a file")
    return weights


def common_tokenizer(paths, tokenizer: str, vocab: int, doc_sep: str, cache: Path) -> str:
    """A tokenizer's file for all: the given one, a prepared source's, or one trained on them all.

    Merges are learnt from the training texts only; characters of validation have ids, too.
    """
    own = [Path(p) / "tokenizer.json" for p in paths if Path(p).is_dir()]
    if Path(tokenizer).is_file() or own:
        return str(own[0] if own else tokenizer)
    texts = [split_text(read_text(p), doc_sep) for p in paths]
    key = sha256(repr([texts, tokenizer, vocab, doc_sep]).encode())
    path = cache / f"tokenizer-{key[:12]}.json"
    if not path.exists():
        parts = zip(*texts, strict=True)
        train, val = ([d for text in part for d in documents(text, doc_sep)] for part in parts)
        cache.mkdir(parents=True, exist_ok=True)
        prepare.make_tokenizer(tokenizer, vocab, train, val, ends=True).save(path)
    return str(path)


def open_sources(
    data, *, tokenizer="bpe", vocab=1000, doc_sep=END, mixture="", scratch=None
) -> dict:
    """Prepare and open every source: {name: Prepared}, the name a path without its ending.

    What must be made lies in the cache, or in the directory `scratch`. ValueError if two were
    prepared with different tokenizers, or one is too short to be scored.
    """
    paths = list(weights_of(data, mixture))
    if len(paths) > 1:
        tokenizer = common_tokenizer(
            paths, tokenizer, vocab, unescape(doc_sep), Path(scratch or prepare.CACHE)
        )
    shape = {"tokenizer": tokenizer, "vocab": vocab, "doc_sep": doc_sep}
    found = {
        Path(path).stem: open_prepared(prepared(path, **shape, scratch=scratch)) for path in paths
    }
    if len({source.meta["tokenizer_sha256"] for source in found.values()}) > 1:
        raise ValueError(
            f"{', '.join(found)} have different tokenizers; prepare them with one --tokenizer FILE"
        )
    for source in found.values():
        check_length(source)
    return found


def whole(sources: dict[str, Prepared], *, load: bool = False) -> Prepared:
    """All sources as one Prepared: counts added up, hashes joined; a single one is itself.

    Ids are those of the first source, or with `load` (all in memory) of one after another.
    """
    first = next(iter(sources.values()))
    if len(sources) == 1:
        return first
    metas = [source.meta for source in sources.values()]
    added = [k for k in first.meta if k == "documents" or k.endswith(("_tokens", "_bytes"))]
    meta = {**first.meta, **{k: sum(m[k] for m in metas) for k in added}}
    overlaps = [m.get("val_overlap", 0.0) * m["val_tokens"] for m in metas]
    meta["val_overlap"] = sum(overlaps) / meta["val_tokens"]
    meta["name"] = " ".join(sources)
    meta["text_sha256"] = sha256("".join(m["text_sha256"] for m in metas).encode())
    if not load:
        return replace(first, meta=meta)
    train, val = (
        np.concatenate([getattr(s, k) for s in sources.values()]) for k in ("train", "val")
    )
    return replace(first, meta=meta, train=train, val=val)


def feed_of(sources: dict[str, Prepared], settings, **more) -> Feed:
    """The Feed of a run from its settings; `more` is rank, world, prefetch.

    Drawing is 0.4 % of a small model's step on a CPU, so there a thread would gain nothing.
    """
    d, s, T = settings.data, settings.train, settings.model.block_size
    weights = tuple(weights_of(d.data, d.mixture).values())
    phases = phases_of(d.phases, list(sources), weights, T)
    ids = [source.train for source in sources.values()]
    return Feed(ids, phases, T, s.batch_size, s.accum, s.seed, sampling=d.sampling, **more)
