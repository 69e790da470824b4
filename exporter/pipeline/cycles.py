"""Tells Python's collector of cycles how the objects of this program live.

Reference counts free nearly all objects as soon as their batch is committed. The collector would
look at each batch several times and find nothing, which takes a tenth of the processor time.
"""

from __future__ import annotations

import gc

OBJECTS_NEW = 100_000
"""How many more objects than before start a collection. A batch has fewer at a time. Cycles of
HTTP connections and of errors are still found, before they take some megabytes."""


def collect_seldom() -> None:
    """Leave out the objects that exist now, and look at new ones seldom. Call this after a start.

    After a reload, the objects of the former start are collected before.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_NEW)
