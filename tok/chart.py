"""One line and some named points as SVG text: a plot that needs no package."""

from collections.abc import Sequence
from html import escape
from math import ceil, log2

WIDTH, HEIGHT, EDGE = 640, 400, 60
BLUE, RED, GREY = "#06c", "#c30", "#ddd"


def chart(
    x_name: str,
    y_name: str,
    line: Sequence[tuple[float, float]],
    points: Sequence[tuple[str, float, float]],
) -> str:
    """Draw (x, y) as a line, (name, x, y) as points. x by powers of two, y from 0."""
    places = [*line, *((x, y) for _, x, y in points)]
    powers = [log2(x) for x, _ in places]
    left, right = int(min(powers)), int(max(powers)) + 1
    top = ceil(max(y for _, y in places))

    def at(x: float, y: float) -> tuple[float, float]:
        across, up = (log2(x) - left) / (right - left), y / top
        return EDGE + across * (WIDTH - 2 * EDGE), HEIGHT - EDGE - up * (HEIGHT - 2 * EDGE)

    parts = [words(WIDTH / 2, HEIGHT - 15, x_name), words(EDGE, EDGE - 20, y_name)]
    for level in range(top + 1):
        start, end = at(2**left, level), at(2**right, level)
        parts += [stroke([start, end], GREY), words(start[0] - 12, start[1] + 4, str(level))]
    for power in range(left, right + 1):
        parts.append(words(at(2**power, 0)[0], HEIGHT - EDGE + 18, f"{2**power:,}"))
    drawn = [at(x, y) for x, y in line]
    parts += [stroke(drawn, BLUE), *(dot(place, BLUE) for place in drawn)]
    for name, x, y in points:
        place = at(x, y)
        parts += [dot(place, RED), words(place[0], place[1] - 9, name)]
    return "\n".join([HEAD, *parts, "</svg>\n"])


HEAD = (
    f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
    'font-family="sans-serif" font-size="12" text-anchor="middle">\n'
    '<rect width="100%" height="100%" fill="white"/>'
)


def words(x: float, y: float, text: str) -> str:
    """Text around a place."""
    return f'<text x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def dot(place: tuple[float, float], colour: str) -> str:
    """A point."""
    return f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="3.5" fill="{colour}"/>'


def stroke(places: Sequence[tuple[float, float]], colour: str) -> str:
    """A line through places."""
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return f'<path d="M{path}" stroke="{colour}" fill="none"/>'
