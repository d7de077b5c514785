"""Run the notebooks of docs/notebooks from the top, and keep in them what they show.

python -m utils.notebooks                          # all, where they are: a minute or two
python -m utils.notebooks 2_attention --out shown  # a copy in a folder of yours
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tok.cli import Parser, run, unknown_name
from tok.files import replacing

FOLDER = Path(__file__).parent.parent / "docs" / "notebooks"
MOST = 600  # seconds a cell


def find(names: Sequence[str], folder: Path = FOLDER) -> list[Path]:
    """The notebooks of these names, all if none is given. ValueError for one that is not there."""
    known = {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    for name in names:
        if name not in known:
            raise ValueError(unknown_name("notebook", name, known))
    return [known[name] for name in names] or list(known.values())


def executed(path: Path) -> Any:
    """A notebook with what its cells show, run by a kernel in its folder.

    Raises ValueError for a cell that fails, or where the packages are missing.
    """
    try:
        import nbformat
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError
    except ImportError as e:
        raise ValueError(f"{e}; pip install 'llm-tiny[notebooks]'") from None

    book = nbformat.read(path, as_version=4)
    how: dict[str, Any] = {"kernel_name": "python3", "timeout": MOST, "coalesce_streams": True}
    how |= {"record_timing": False, "resources": {"metadata": {"path": str(path.parent)}}}
    how["extra_arguments"] = ["--IPKernelApp.log_level=40"]  # it warns of TCP, here to itself
    try:
        NotebookClient(book, **how).execute()
    except CellExecutionError as e:
        where = next(i for i, cell in enumerate(book.cells, 1) if failed(cell))
        raise ValueError(f"{path.name}, cell {where}: {e.ename}: {e.evalue}") from None
    return plain(book)


def failed(cell: Any) -> bool:
    """Whether a cell shows an error."""
    return any(output.output_type == "error" for output in cell.get("outputs", []))


def plain(book: Any) -> Any:
    """The notebook without what changes from machine to machine: versions, ids of cells."""
    book.metadata = {"language_info": {"name": "python"}}
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    for i, cell in enumerate(book.cells, 1):
        cell.id, cell.metadata = f"cell-{i}", {}
    return book


def write(book: Any, path: Path) -> None:
    """Write a notebook, whole or not at all."""
    import nbformat

    with replacing(path) as part, open(part, "w", encoding="utf-8", newline="\n") as file:
        nbformat.write(book, file)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the notebooks named, or all."""
    p = Parser(prog="python -m utils.notebooks", description=__doc__)
    p.add_argument("names", nargs="*", metavar="NAME", help="such as 2_attention (default: all)")
    p.add_argument("--out", help="folder to write to (default: where they are)")
    a = p.parse_args(argv)
    for path in find(a.names):
        start = time.perf_counter()
        out = Path(a.out or path.parent)
        out.mkdir(parents=True, exist_ok=True)
        write(executed(path), out / path.name)
        print(f"{path.name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    run(main)
