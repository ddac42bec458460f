"""Builds and runs the load generator (``load.c``)."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
#: Seconds beyond its own time that a run may take: lost calls are waited for.
GRACE = 60.0
#: Calls a second that a run without --rate begins, which is load.c's default, and without --calls how many.
RATE, CALLS = 20.0, 64

Result = dict[str, Any]


class GeneratorError(Exception):
    """It could not be built, or could not measure."""


def build(source: Path, folder: Path) -> Path:
    """Compile ``source`` with the machine's own C compiler. Raises :class:`GeneratorError`."""
    program = folder / source.stem
    command = ["cc", "-O2", "-o", str(program), str(source)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise GeneratorError("no C compiler: please install one (Debian: gcc, libc6-dev)") from error
    if done.returncode != 0:
        raise GeneratorError(f"{' '.join(command)}:\n{done.stderr}")
    return program


class Generator:
    """``load`` on a core of its own, with the stand-ins of Ameyo and of a relay on their ports."""

    def __init__(self, folder: Path, core: int, ameyo_port: int, relay_port: int) -> None:
        self._program = build(HERE / "load.c", folder)
        self._core = core
        self._ports = {"ameyo": ameyo_port, "relay": relay_port}

    def run(
        self, mode: str, port: int, held: Callable[[], None] = lambda: None, **options: float | str
    ) -> Result:
        """One run against the controller on ``port``; ``held`` is called once all calls of `hold` are held.

        Raises :class:`GeneratorError`, also where the run takes a minute longer than it should.
        """
        command = ["taskset", "-c", str(self._core), str(self._program), mode, str(HERE / "channel.txt")]
        command.append(f"127.0.0.1:{port}")
        for name, value in {**self._ports, **options}.items():
            command += [f"--{name}", str(value)]
        limit = _expected(options) + GRACE
        late = threading.Event()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:

            def give_up() -> None:
                late.set()
                process.kill()

            clock = threading.Timer(limit, give_up)
            clock.start()
            try:
                assert process.stdout is not None
                if mode == "hold" and process.stdout.readline():
                    held()
                text, errors = process.communicate()
            except BaseException:
                process.kill()
                raise
            finally:
                clock.cancel()
        if late.is_set():
            raise GeneratorError(f"{mode} did not end within {limit:.0f} s")
        if process.returncode != 0:
            raise GeneratorError(f"{mode}: {errors.strip()}")
        found: Result = json.loads(text.splitlines()[-1])
        return found


def _expected(options: Mapping[str, float | str]) -> float:
    """Seconds that a run with these options takes, about."""

    def number(name: str, default: float = 0.0) -> float:
        return float(options.get(name, default))

    begins = number("calls", CALLS) / number("rate", RATE) if "rate" in options else 0.0
    return begins + number("warmup") + number("seconds") + number("down") + number("patience")
