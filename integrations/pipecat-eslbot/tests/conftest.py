"""Where there is no Pipecat, as in eslbot's own environment, there is nothing that could be tested."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("pipecat") else ["test_*.py"]
