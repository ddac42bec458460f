"""Builds and runs the load generator (``load.c``)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
#: Seconds beyond its own time that a run may take: lost calls are waited for.
GRACE = 60.0

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
    """``load`` on a core of its own, with Ameyo's stand-in on ``ameyo_port``."""

    def __init__(self, folder: Path, core: int, ameyo_port: int) -> None:
        self._program = build(HERE / "load.c", folder)
        self._core = core
        self._ameyo_port = ameyo_port

    def run(self, mode: str, port: int, held: Callable[[], None] = lambda: None, **options: float) -> Result:
        """One run against the controller on ``port``; ``held`` is called once all calls of `hold` are held.

        Raises :class:`GeneratorError`.
        """
        command = ["taskset", "-c", str(self._core), str(self._program), mode, str(HERE / "channel.txt")]
        command += [f"127.0.0.1:{port}", "--ameyo", str(self._ameyo_port)]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                if mode == "hold" and process.stdout.readline():
                    held()
                text, errors = process.communicate(timeout=options.get("seconds", 0.0) + GRACE)
            except BaseException as error:
                process.kill()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise GeneratorError(f"{mode} did not end within {error.timeout:g} s") from error
                raise
        if process.returncode != 0:
            raise GeneratorError(f"{mode}: {errors.strip()}")
        found: Result = json.loads(text.splitlines()[-1])
        return found
