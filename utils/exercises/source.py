"""Functions in source text: found by a marker, emptied, changed, shown. Runs none of them.

A marker is the comment `# exercise: SLUG` in the head of a function, or on the line above it.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("tok", "model", "data", "utils")
MARKER = re.compile(r"# exercise: ([a-z0-9-]+)\s*$")
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Function:
    """A function in a text: its name with that of its class, and its lines, counted from 0."""

    text: str
    name: str  # "BPETokenizer.decode_stream"
    start: int  # the first line, decorators and the marker above it included
    body: int  # the first line after head and docstring
    end: int  # one past the last line
    indent: int  # of the body

    @property
    def lines(self) -> list[str]:
        """The lines of the whole text, with their ends."""
        return self.text.splitlines(keepends=True)

    def source(self) -> str:
        """The function alone, without its marker."""
        lines = self.lines[self.start : self.end]
        kept = [MARKER.sub("", line.rstrip("\n")).rstrip() for line in lines]
        return "\n".join(kept[1:] if not kept[0] else kept)

    def with_body(self, body: str) -> str:
        """The whole text with another body."""
        return "".join(self.lines[: self.body]) + body + "".join(self.lines[self.end :])

    def emptied(self, message: str) -> str:
        """The whole text; the body is an error, and the docstring stays."""
        return self.with_body(f'{" " * self.indent}raise NotImplementedError("{message}")\n')

    def changed(self, old: str, new: str) -> str:
        """The whole text, `old` replaced in the body. ValueError unless it stands there once."""
        body = "".join(self.lines[self.body : self.end])
        if body.count(old) != 1:
            raise ValueError(f"{old!r} stands {body.count(old)} times in {self.name}, not once")
        return self.with_body(body.replace(old, new))


def functions(text: str) -> list[Function]:
    """All functions and methods of a source text. SyntaxError if it is none."""
    found: list[Function] = []

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, FunctionNode):
                found.append(function(text, child, prefix + child.name))
            elif isinstance(child, ast.ClassDef):
                visit(child, f"{prefix}{child.name}.")

    visit(ast.parse(text), "")
    return found


def function(text: str, node: FunctionNode, name: str) -> Function:
    """Where a node of the syntax tree stands."""
    start = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
    if start and MARKER.match(text.splitlines()[start - 1].strip()):
        start -= 1
    first = node.body[0]
    has_docstring = ast.get_docstring(node, clean=False) is not None
    body = first.end_lineno if has_docstring else first.lineno - 1
    assert body is not None
    assert node.end_lineno is not None
    return Function(text, name, start, body, node.end_lineno, first.col_offset)


def marked(text: str) -> dict[str, Function]:
    """The functions of a text by the slugs of their markers."""
    found = {}
    for f in functions(text) if "# exercise: " in text else []:
        for line in f.lines[f.start : f.body]:
            if m := MARKER.search(line):
                found[m[1]] = f
    return found


def files_with(pattern: str) -> list[Path]:
    """Our files in which a line ends in this, relative to the repository."""
    found = re.compile(pattern + r"\s*$", re.M)
    paths = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    kept = [path for path in paths if found.search(path.read_text(encoding="utf-8"))]
    return [path.relative_to(ROOT) for path in kept]


def every_slug() -> list[str]:
    """The slugs of all our markers, one as often as it is there."""
    texts = [(ROOT / path).read_text(encoding="utf-8") for path in files_with(MARKER.pattern)]
    return sorted(slug for text in texts for slug in marked(text))


def ours(slug: str) -> tuple[Path, Function]:
    """Our file of an exercise, relative to the repository, and our function in it.

    Raises ValueError unless exactly one function is marked so.
    """
    paths = files_with(f"# exercise: {slug}")
    if len(paths) != 1:
        where = " and ".join(map(str, paths)) or "none; is this a whole checkout?"
        raise ValueError(f"`# exercise: {slug}` must mark one function; it is in {where}")
    return paths[0], marked((ROOT / paths[0]).read_text(encoding="utf-8"))[slug]


def check_learners(path: Path, name: str) -> None:
    """Raise ValueError in one line if a learner's file can't be read as a module with `name`."""
    try:
        names = [f.name for f in functions(path.read_text(encoding="utf-8"))]
    except SyntaxError as e:
        raise ValueError(f"{path}, line {e.lineno}: {e.msg}") from None
    except (UnicodeDecodeError, ValueError) as e:
        raise ValueError(f"{path} is not a Python file in UTF-8: {e}") from None
    if name not in names:
        cure = "put it back, or `start` it `--again`"
        raise ValueError(f"{path} has no function {name} any more; {cure}")
