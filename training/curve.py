"""Draws a run's losses: ``python -m training.curve RUN/loss.csv docs/bundled-model/loss.svg``."""

import argparse
import csv
import math
from pathlib import Path

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 760, 400, 56, 44, 16, 150
COLOURS = ("#888888", "#111111", "#c0392b", "#2471a3", "#1e8449", "#b9770e", "#7d3c98")
SHOWN = ("train", *(f"heldout {kind}" for kind in ("all", "facts", "json", "arithmetic", "tools", "think")))
LOWEST = 0.003
Points = list[tuple[float, float]]


def read(path: Path) -> dict[str, Points]:
    """(tokens, loss) of every column that is shown."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        name: points
        for name in SHOWN
        if (points := [(float(row["tokens"]), float(row[name])) for row in rows if row.get(name)])
    }


def draw(curves: dict[str, Points]) -> str:
    """An SVG; losses on a logarithmic scale."""
    most = max(x for points in curves.values() for x, _ in points)
    low = max(LOWEST, min(y for points in curves.values() for _, y in points))
    high = max(y for points in curves.values() for _, y in points)

    def place(x: float, y: float) -> str:
        right = LEFT + (WIDTH - LEFT - RIGHT) * x / most
        down = (math.log(high) - math.log(max(y, low))) / (math.log(high) - math.log(low))
        return f"{right:.1f},{TOP + (HEIGHT - TOP - BOTTOM) * down:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for tick in (5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005):
        if low <= tick <= high:
            parts += _grid(place(0, tick), place(most, tick), f"{tick:g}", -8, 4, "end")
    step = 10 ** math.floor(math.log10(most)) / (1 if most >= 4 * 10 ** math.floor(math.log10(most)) else 2)
    for index in range(int(most / step) + 1):
        x = index * step
        parts += _grid(place(x, low), place(x, high), f"{x / 1e6:g} M", 0, 18, "middle")
    for index, (name, points) in enumerate(curves.items()):
        line = " ".join(place(x, y) for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[index]}" stroke-width="1.5"/>')
        place_of_name = f'x="{WIDTH - RIGHT + 10}" y="{TOP + 16 + 18 * index}"'
        parts.append(f'<text {place_of_name} fill="{COLOURS[index]}">{name}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">tokens; cross-entropy in nats</text>')
    return "\n".join([*parts, "</svg>\n"])


def _grid(start: str, end: str, label: str, right: int, down: int, anchor: str) -> list[str]:
    """A thin line, and its label beside the start."""
    (x1, y1), (x2, y2) = start.split(","), end.split(",")
    return [
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#dddddd"/>',
        f'<text x="{float(x1) + right}" y="{float(y1) + down}" text-anchor="{anchor}" fill="#555555">{label}</text>',
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.curve", description=__doc__)
    parser.add_argument("losses", type=Path)
    parser.add_argument("svg", type=Path)
    flags = parser.parse_args()
    flags.svg.parent.mkdir(parents=True, exist_ok=True)
    flags.svg.write_text(draw(read(flags.losses)), encoding="utf-8")


if __name__ == "__main__":
    main()
