"""Hostile inputs by the million over every parser: ``scripts/fuzz``."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from eslbot.runtime.garbage import settle_memory
from tests.hostile.drive import STALL, Outcome, drive
from tests.hostile.parsers import PARSERS, Parser
from tests.support.mutation import made_up

#: Faults of one kind, at one place, that are shown; bytes of an input that are.
SHOWN, SHOWN_BYTES = 20, 400
#: Inputs that are tried to make a fault's input smaller.
TRIES = 300
#: Seconds between two progress lines.
PROGRESS = 0.5


@dataclass
class Figures:
    """Of one parser."""

    inputs: int = 0
    longest: float = 0.0
    slowest: bytes = b""
    #: By place: how often, and an input.
    faults: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    stalls: int = 0

    def take(self, parser: Parser, content: bytes, outcome: Outcome) -> None:
        self.inputs += 1
        if outcome.step > self.longest:
            self.longest, self.slowest = outcome.step, content
        if outcome.step > STALL and parser.in_loop:
            self.stalls += 1
        if outcome.fault is not None:
            times, example = self.faults.get(outcome.place, (0, content))
            self.faults[outcome.place] = (times + 1, min(example, content, key=len))


def main() -> int:
    """Exit code: 0 nothing found, 1 something, 2 a mistake in the arguments."""
    arguments = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    arguments.add_argument(
        "--inputs", type=int, default=1_000_000, help="how many in all (default: %(default)s)"
    )
    arguments.add_argument(
        "--seed", type=int, default=None, help="of the generator; by default another each time"
    )
    arguments.add_argument(
        "--only", action="append", metavar="NAME", help="parsers whose name holds NAME; again for more"
    )
    arguments.add_argument("--json", metavar="FILE", help="write the figures there, too")
    asked = arguments.parse_args()
    chosen = [p for p in PARSERS if not asked.only or any(word in p.name for word in asked.only)]
    if not chosen or asked.inputs < 1:
        arguments.error(f"--only: known are {', '.join(parser.name for parser in PARSERS)}")
    seed = asked.seed if asked.seed is not None else int.from_bytes(os.urandom(4))
    quiet()
    print(f"seed {seed}, load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    began = time.monotonic()
    figures = run(chosen, asked.inputs, seed)
    print(report(figures, time.monotonic() - began))
    if asked.json:
        document = as_document(figures, seed, time.monotonic() - began)
        Path(asked.json).write_text(json.dumps(document, indent=1) + "\n")
    return int(any(one.faults or one.stalls for one in figures.values()))


def quiet() -> None:
    """What the parsers log of a million hostile inputs is nobody's to read."""

    def drop(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        raise structlog.DropEvent

    structlog.configure(processors=[drop])


def run(parsers: list[Parser], inputs: int, seed: int) -> dict[str, Figures]:
    """``inputs`` over ``parsers``, by their shares."""
    for parser in parsers:  # what is imported at the first use is no input's fault
        for content in parser.seeds:
            drive(parser, content)
    settle_memory()  # as a worker's
    figures = {parser.name: Figures() for parser in parsers}
    shares = sum(parser.share for parser in parsers)
    done, due = 0, time.monotonic() + PROGRESS
    for number, parser in enumerate(parsers):
        rng = random.Random(f"{seed} {parser.name}")
        last = number == len(parsers) - 1
        own = inputs - done if last else round(inputs * parser.share / shares)
        for _ in range(own):
            content = made_up(rng, parser.seeds)
            figures[parser.name].take(parser, content, drive(parser, content))
            done += 1
            if sys.stderr.isatty() and time.monotonic() > due:
                due = time.monotonic() + PROGRESS
                print(f"\r\033[K{done:,} of {inputs:,}: {parser.name}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return figures


def report(figures: dict[str, Figures], seconds: float) -> str:
    """For people."""
    lines = [f"{'parser':28} {'inputs':>9} {'unexpected':>11} {'longest step, ms':>17} {'over 50 ms':>11}"]
    for name, one in figures.items():
        parser = _named(name)
        unexpected = sum(times for times, _ in one.faults.values())
        over = f"{one.stalls}" if parser.in_loop else "not in a loop"
        lines.append(f"{name:28} {one.inputs:>9,} {unexpected:>11,} {one.longest * 1000:>17.2f} {over:>13}")
    total = sum(one.inputs for one in figures.values())
    lines.append(f"{total:,} inputs in {seconds:.0f} s, load average {os.getloadavg()[0]:.1f}")
    for name, one in figures.items():
        for place, (times, content) in list(one.faults.items())[:SHOWN]:
            lines += ["", f"{name}: {place}, {times} times", _shown(smaller(_named(name), place, content))]
        if one.stalls:
            lines += ["", f"{name}: {one.longest * 1000:.0f} ms", _shown(one.slowest)]
    return "\n".join(lines)


def _named(name: str) -> Parser:
    return next(parser for parser in PARSERS if parser.name == name)


def _shown(content: bytes) -> str:
    rest = f"… ({len(content)} bytes)" if len(content) > SHOWN_BYTES else ""
    return f"  hex {content[:SHOWN_BYTES].hex()}{rest}\n      {content[:SHOWN_BYTES]!r}{rest}"


def smaller(parser: Parser, place: str, content: bytes) -> bytes:
    """A part of ``content`` with the same fault at the same place."""
    size, tries = max(1, len(content) // 2), 0
    while size and tries < TRIES:
        at = 0
        while at < len(content) and tries < TRIES:
            tries += 1
            less = content[:at] + content[at + size :]
            outcome = drive(parser, less)
            if outcome.fault is not None and outcome.place == place:
                content = less
            else:
                at += size
        size //= 2
    return content


def as_document(figures: dict[str, Figures], seed: int, seconds: float) -> dict[str, Any]:
    """For programs."""
    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "load_average": os.getloadavg()[0],
        "parsers": {
            name: {
                "inputs": one.inputs,
                "unexpected": {
                    place: [times, content.hex()] for place, (times, content) in one.faults.items()
                },
                "longest_ms": round(one.longest * 1000, 3),
                "stalls": one.stalls,
                "slowest": one.slowest.hex() if one.stalls else None,
            }
            for name, one in figures.items()
        },
    }


if __name__ == "__main__":
    raise SystemExit(main())
