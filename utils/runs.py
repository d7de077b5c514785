"""A run's directory: where it is, who trains in it, how it begins. One training at a time."""

import itertools
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tok.files import replacing
from utils.config import Settings, write_yaml

RUNS = Path("runs")
MADE_FIRST = ("config.yaml", "tokenizer.json")  # what every run holds from its start


def run_dir(name: str) -> Path:
    """Where a run lives: runs/NAME, or the path itself if the name has a slash."""
    if not name.strip():
        raise ValueError("a run needs a name; set run, as in --run my")
    path = Path(name)
    is_path = len(path.parts) > 1 or path.is_absolute() or name in (".", "..")
    return path if is_path else RUNS / path


def has_model(run: Path) -> bool:
    """Whether a directory is a run with a checkpoint."""
    return (run / "best.pt").exists() or (run / "last.pt").exists()


def check_apart(run: Path, other: Path, flag: str = "--init") -> None:
    """Raise ValueError if a run is to be made where one lies that it needs, named by a flag."""
    if run.resolve() == other.resolve():
        raise ValueError(f"--run must name another run than {other}, which {flag} names")


def latest_run(root: str = "runs") -> Path:
    """Find the run whose checkpoint is newest. Raises ValueError if no run has one."""
    found = [p for name in ("best.pt", "last.pt") for p in Path(root).glob(f"*/{name}")]
    found = [p for p in found if not re.search(r"^\.|-overfit(-\d+)?$", p.parent.name)]
    if not found:
        raise ValueError(f"no run with a checkpoint under {root}/; train one: python train.py")
    return max(found, key=lambda p: p.stat().st_mtime).parent


def lock(file: IO[Any]) -> bool:
    """Lock an open file for this process, as long as it is open; False if another one has."""
    if sys.platform == "win32":  # where two trainings of one name go unnoticed
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def in_use(path: Path) -> bool:
    """Whether a training that is under way has locked this metrics.csv."""
    if not path.exists():
        return False
    with open(path, "a", encoding="utf-8") as file:
        return not lock(file)


def check_free(path: Path) -> None:
    """Raise ValueError if something else than a run is at path, or a run that is being trained."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; --run names a directory")
    is_run = all((path / name).exists() for name in MADE_FIRST)
    if path.is_dir() and any(path.iterdir()) and not is_run:
        raise ValueError(f"{path} holds other files; choose another --run")
    if in_use(path / "metrics.csv"):
        raise ValueError(f"{path} is being trained by another process; choose another --run")


def open_run(
    path: Path,
    settings: Settings,
    tokenizer_file: Path,
    *,
    resume: bool,
    also: Sequence[Path] = (),
) -> None:
    """Make a run's directory with config.yaml and tokenizer.json; an older run is moved aside.

    It appears with these and copies of `also`, or not at all. Raises ValueError as `check_free`.
    """
    check_free(path)
    if resume:
        for torn in path.glob("*.tmp"):  # by a process that was killed while it wrote
            torn.unlink()
        with replacing(path / "config.yaml") as part:
            write_yaml(settings, part)
        return
    with new_run(path) as new:
        write_yaml(settings, new / "config.yaml")
        shutil.copyfile(tokenizer_file, new / "tokenizer.json")
        for file in also:
            shutil.copyfile(file, new / file.name)


@contextmanager
def new_run(path: Path) -> Iterator[Path]:
    """A directory to fill, which becomes the run at `path` at the end; an older one is moved aside.

    After an error nothing is left of it. Raises ValueError as `check_free`; OSErrors name the path.
    """
    check_free(path)
    from data.store import remove_stale  # needs numpy

    remove_stale(path, {*MADE_FIRST, "best.pt", "pretrained.json"})  # of a process that was killed
    new = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        new.mkdir(parents=True, exist_ok=True)
        yield new
        if path.exists():
            numbered = (path.with_name(f"{path.name}-{n}") for n in itertools.count(1))
            old = next(old for old in numbered if not old.exists())
            os.replace(path, old)
            print(f"note: {path} was there; it is {old} now", file=sys.stderr)
        os.replace(new, path)
    except OSError as e:
        if e.errno is None:  # it says all itself
            raise
        raise type(e)(e.errno, e.strerror, str(path)) from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
