"""What the `process_*` metrics of client libraries of Prometheus say about a process, of this one.

prometheus_client's own collector needs /proc/stat for the time of the boot, and shows nothing
without it. The service's sandbox (`ProcSubset=pid`) hides that file, so the time comes from a
clock.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Final

from exporter.metrics.definitions import MetricDefinition

PROCESS_FAMILIES: Final = (
    MetricDefinition(
        "process_cpu_seconds_total",
        "counter",
        (),
        "User and system CPU time of the exporter.",
        unit="seconds",
    ),
    MetricDefinition(
        "process_max_fds", "gauge", (), "Highest number of files that the exporter may have open."
    ),
    MetricDefinition("process_open_fds", "gauge", (), "Files that the exporter has open."),
    MetricDefinition(
        "process_virtual_memory_bytes", "gauge", (), "Virtual memory of the exporter.", unit="bytes"
    ),
    MetricDefinition(
        "process_resident_memory_bytes", "gauge", (), "Memory of the exporter that is in RAM.", unit="bytes"
    ),
    MetricDefinition(
        "process_start_time_seconds",
        "gauge",
        (),
        "When the process of the exporter started.",
        unit="seconds",
    ),
)
_SELF: Final = Path("/proc/self")
_START, _VIRTUAL, _RESIDENT = 19, 20, 21
"""Fields of /proc/self/stat, counted from 0 behind the name of the program."""


def process_values() -> dict[str, float]:
    """Return the values as of now; without /proc, only CPU time and the limit of files."""
    found: dict[str, float] = {
        "process_cpu_seconds_total": time.process_time(),
        "process_max_fds": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }
    try:
        # The name of a program may contain blanks and parentheses.
        fields = (_SELF / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
        open_fds = sum(1 for _ in (_SELF / "fd").iterdir())
    except OSError:
        return found
    # The boot by the clock that counts suspended time as well, as the start does.
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return found | {
        "process_open_fds": open_fds,
        "process_virtual_memory_bytes": int(fields[_VIRTUAL]),
        "process_resident_memory_bytes": int(fields[_RESIDENT]) * os.sysconf("SC_PAGE_SIZE"),
        "process_start_time_seconds": boot + int(fields[_START]) / os.sysconf("SC_CLK_TCK"),
    }
