"""Run a few lines in a process whose standard library is gevent's, as a worker's is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run_patched(code: str, seconds: float = 20, **arguments: Any) -> Any:
    """What ``code`` leaves in ``result``; ``arguments`` are its globals."""
    program = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import json, sys\n"
        "globals().update(json.loads(sys.argv[1]))\n"
        f"{textwrap.dedent(code)}\n"
        "print(json.dumps(result))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
