"""Settings of Python's garbage collector in processes that carry calls: a collection stops them all."""

from __future__ import annotations

import gc

#: New objects after which the collector looks for cycles among them.
YOUNG = 10_000


def settle_memory() -> None:
    """What is there now stays: never look through it for garbage again, and seldom through the calls'.

    By Python's own measure the collector would look at every 700th new object, each time at all calls'
    young objects, and every now and then at everything: nearly 30 ms (measured) in which all calls wait.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 100)
