"""Which room of eslbot imports which, as a table in docs/architecture.md: ``scripts/imports``."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import grimp

DOCUMENT = Path("docs/architecture.md")
BEGIN, END = "<!-- made by scripts/imports -->\n", "<!-- end of it -->\n"


def imports() -> Counter[tuple[str, str]]:
    """How many modules of a room import another one, for anything but types; the program's entry left out."""
    graph = grimp.build_graph("eslbot", exclude_type_checking_imports=True, cache_dir=None)

    def room(module: str) -> str:
        return module.split(".")[1] if "." in module else ""

    found: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        others = {room(one) for one in graph.find_modules_directly_imported_by(module)}
        for other in others - {room(module), ""}:
            if room(module) not in {"", "__main__"}:
                found[room(module), other] += 1
    return found


def ordered(found: Counter[tuple[str, str]]) -> list[str]:
    """The rooms, each above those that it imports as far as there are no circles."""
    left = sorted({room for pair in found for room in pair})
    above: list[str] = []
    below: list[str] = []

    def out(room: str) -> int:
        return sum(found[room, other] for other in left)

    def into(room: str) -> int:
        return sum(found[other, room] for other in left)

    while left:  # Eades, Lin, Smyth (1993): few circles, not surely the fewest
        chosen = max(left, key=lambda room: (not out(room), not into(room), out(room) - into(room)))
        left.remove(chosen)
        if out(chosen):
            above.append(chosen)
        else:
            below.insert(0, chosen)
    return above + below


def table(found: Counter[tuple[str, str]]) -> str:
    """A row says whom a room imports, and from how many of its modules; left of the diagonal are circles."""
    rooms = ordered(found)
    width = max(map(len, rooms))
    lines = [" " * (width + 4) + "".join(f"{number:3}" for number in range(1, len(rooms) + 1))]
    for number, room in enumerate(rooms, 1):
        cells = ("  ■" if other == room else f"{found[room, other] or '·':>3}" for other in rooms)
        lines.append(f"{number:2} {room:{width}} " + "".join(cells))
    back = [
        f"{room} → {other} ({found[room, other]})"
        for number, room in enumerate(rooms)
        for other in rooms[:number]
        if found[room, other]
    ]
    return "\n".join([*lines, "", f"Left of the diagonal, {len(back)}: {', '.join(back) or 'nothing'}"])


def main() -> None:
    """Put the table in its place."""
    text = DOCUMENT.read_text(encoding="utf-8")
    drawn = f"{BEGIN}```\n{table(imports())}\n```\n{END}"
    text, places = re.subn(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: drawn, text, flags=re.DOTALL)
    if places != 1:
        raise SystemExit(f"{DOCUMENT}: there is no one place for the table, between {BEGIN!r} and {END!r}")
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
