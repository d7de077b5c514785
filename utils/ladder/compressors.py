"""General compressors on the same text: how many bytes the held-out part adds to the training part.

bits per byte = 8 (size(training + held out) - size(training)) / bytes held out

So a compressor may use all that it can of the training text, as a rung may: gzip looks 32 KB back,
the others all the way. python -m utils.ladder.compressors
"""

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec

from tok.cli import run
from utils.ladder.corpus import Corpus, Result, opened

Compress = Callable[[bytes], bytes]
GET_ZSTD = "zstd: not measured; pip install zstandard, or Python 3.14, which has it"


def zstd() -> Compress | None:
    """Zstandard at level 19, of Python 3.14 or of the package zstandard; None without both."""
    if find_spec("compression"):
        return partial(import_module("compression.zstd").compress, level=19)
    if find_spec("zstandard"):
        compressor = import_module("zstandard").ZstdCompressor(level=19)
        return lambda data: compressor.compress(data)
    return None


def compressors() -> dict[str, tuple[str, Compress]]:
    """Name -> (what it looks back at, its function at its best usual level), those at hand."""
    found: dict[str, tuple[str, Compress]] = {
        "gzip -9": ("the last 32 KB", partial(gzip.compress, compresslevel=9, mtime=0)),
        "bzip2 -9": ("blocks of 900 KB", partial(bz2.compress, compresslevel=9)),
        "xz -9e": ("all before", partial(lzma.compress, preset=9 | lzma.PRESET_EXTREME)),
    }
    if (compress := zstd()) is not None:
        found["zstd -19"] = ("all before", compress)
    return found


def added_bits(compress: Compress, corpus: Corpus) -> float:
    """Bits that each held-out byte adds to the compressed training text."""
    train, val = corpus.train_text.encode(), corpus.val_text.encode()
    return 8 * (len(compress(train + val)) - len(compress(train))) / len(val)


def climb(corpus: Corpus, effort: float = 1.0) -> Iterator[Result]:
    """One row a compressor. Nothing is learnt: 0 parameters."""
    for name, (sees, compress) in compressors().items():
        yield Result(name, sees, 0, added_bits(compress, corpus))


def main(argv: Sequence[str] | None = None) -> None:
    """Print the compressors' scores."""
    corpus, effort = opened("compressors", __doc__, argv)
    print(*climb(corpus, effort), sep="\n")
    if zstd() is None:
        print(GET_ZSTD)


if __name__ == "__main__":
    run(main, threads=1)
