"""What would be understood of a log, and the log in Wok's own text form: two looks at files, without any state.

`check` runs the parser and the correlator as the daemon would, and only counts. Whatever could be endless in a
hostile log (applications, operations, zones, lines that are no records) is counted up to a bound, so that memory
stays small however long the log is.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from exporter import restarts, view
from exporter.archive import Archive
from exporter.config import Config
from exporter.correlate import Correlator
from exporter.messages import Messages
from exporter.operations import OTHER, Operations
from exporter.parse import Parser
from exporter.progress import ProgressLine
from exporter.records import (
    GRADES,
    NANOS,
    OUTCOMES,
    Event,
    Line,
    Record,
    Rejected,
    RequestSeen,
    TaskEnded,
    TaskRepeated,
)
from exporter.sentences import People, Sentences
from exporter.text import render, visible
from exporter.zones import Zones, load_zone

READ_BYTES = 512 * 1024
TEXT_READ_BYTES = 64 * 1024
"""Small, so that `| head` does not wait for a chunk that it will not read."""
LISTED_MAX = 100
"""Rejected lines that are listed: nobody reads more, and all are counted."""
NAMES_MAX = 1000
"""Applications, or operations, that are counted apart; a host with every plug-in has about 100 operations."""
ROWS_SHOWN = 30
"""Operations that a person is shown; JSON has all."""
ZONES_MAX = 100
ZONE_CHARS_MAX = 32

_ZONE = b'"zone": "'
