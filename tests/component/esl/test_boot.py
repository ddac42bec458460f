"""A worker is ready when it is forked: what it runs was imported before, and holds nothing unpatched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.processes import ROOT, EslbotService, tree, until

#: What gevent's own patching imports.
OF_GEVENT = {"_threading_local", "gevent", "zope"}
#: Has the worker write down what was imported between its fork and its first connection.
TOLD = """
import json, os, sys
from eslbot.server import worker
made, show, before = worker.CallWorker.__init__, worker.CallWorker.show, set()
def noted(self, *about):
    before.update(sys.modules)
    made(self, *about)
def told(self, state):
    if state == worker.ACCEPTING:
        with open("{file}.new", "w") as file:
            json.dump(sorted(set(sys.modules) - before), file)
        os.replace("{file}.new", "{file}")
    show(self, state)
worker.CallWorker.__init__, worker.CallWorker.show = noted, told
"""

#: Tells what modules hold of the standard library that gevent replaces later.
HELD = """
import json, os, sys, tempfile, threading
from importlib import import_module
os.environ["PROMETHEUS_MULTIPROC_DIR"] = sys.argv[1]
from eslbot.server.service import OF_WORKERS
for module in OF_WORKERS:
    import_module(module)
import gevent
from gevent import monkey
has_hub = gevent._hub_local.get_hub_if_exists() is not None
sockets = [fd for fd in os.listdir("/proc/self/fd") if "socket:" in os.path.realpath(f"/proc/self/fd/{fd}")]
threads = threading.active_count()
monkey.patch_all(ssl=False)
replaced = {
    id(old): f"{name}.{key}" for name, of in monkey.saved.items() for key, old in of.items() if callable(old)
}
ours = ("eslbot", "greenswitch", "prometheus_client", "requests", "urllib3", "structlog")
held = []
for name, module in list(sys.modules.items()):
    if name.partition(".")[0] in ours:
        for key, value in vars(module).items():
            kinds = value.__mro__ if isinstance(value, type) and value.__module__ == name else (value,)
            held += [f"{name}.{key}: {replaced[id(kind)]}" for kind in kinds if id(kind) in replaced]
print(json.dumps([has_hub, sockets, threads, sorted(held)]))
"""
#: Sockets of our own that are never waited for; locks that nobody holds while another greenlet runs; and a
#: queue that is only asked without waiting.
MEANT = {
    "eslbot.calls.bot.prepare._Socket: socket.socket",
    "eslbot.server.peer_credentials._Socket: socket.socket",
    "eslbot.server.worker._Socket: socket.socket",
    "prometheus_client.metrics.Lock: threading.Lock",
    "prometheus_client.registry.Lock: threading.Lock",
    "prometheus_client.values.Lock: threading.Lock",
    "urllib3.connectionpool._DEFAULT_QUEUE_CLASS: queue.LifoQueue",
}


def test_a_worker_imports_nothing_of_ours(tmp_path: Path) -> None:
    told = tmp_path / "imported.json"
    with EslbotService(tmp_path, tree(workers=1), before=TOLD.replace("{file}", str(told))):
        until(told.exists)
    late = {name for name in json.loads(told.read_text()) if name.partition(".")[0] not in OF_GEVENT}
    assert late == set()


def test_what_is_imported_before_the_fork_opens_nothing_and_keeps_nothing_that_waits(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELD, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    has_hub, sockets, threads, held = json.loads(done.stdout or "[]") or [done.stderr] * 4
    assert (has_hub, sockets, threads) == (False, [], 1)
    assert {name for name in held if not name.startswith("requests.packages.")} == MEANT
