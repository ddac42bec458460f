"""The package and its examples are found beside the tests, installed or not."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
for folder in (HERE.parent, HERE.parent / "examples"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
