"""Any order of faults on the real process: nothing is lost, nothing is doubled, everything is counted.

`make test` tries a few orders, `make weather` as many as there is time for.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from exporter.records import SIGNALS, Signal
from tests.weather import REPLIES, Backend, Host
from tests.weather_log import Edit, Rotation

EXAMPLES = int(os.environ.get("WEATHER_EXAMPLES", "4"))
STEPS = int(os.environ.get("WEATHER_STEPS", "12"))
BACKENDS: list[Backend] = [*REPLIES]
EDITS: list[Edit] = ["delete", "tail", "in place"]
ROTATIONS: list[Rotation] = ["rename", "gzip", "date", "copytruncate"]


class Weather(RuleBasedStateMachine):
    """One host; what Wok, the daemon, the backend and logrotate do comes in any order."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="weather-"))
        self.host = Host(self.folder)
        self.host.__enter__()
        self.running: list[str] = []
        self.guests = 0

    @rule(count=st.integers(1, 40))
    def requests(self, count: int) -> None:
        for _ in range(count):
            self.guests += 1
            self.running.append(f"web{self.guests}")
            self.host.wok.request(self.running[-1])

    @rule(count=st.integers(1, 40), failed=st.booleans())
    def ends(self, count: int, failed: bool) -> None:
        for name in self.running[:count]:
            self.host.wok.end(name, failed=failed)
        del self.running[:count]

    @rule()
    def torn_line(self) -> None:
        self.host.wok.tear()

    @rule(how=st.sampled_from(ROTATIONS))
    def rotation(self, how: Rotation) -> None:
        self.host.wok.rotate(how)

    @rule(how=st.sampled_from(BACKENDS), signals=st.sampled_from([SIGNALS, *[(one,) for one in SIGNALS]]))
    def backend(self, how: Backend, signals: tuple[Signal, ...]) -> None:
        self.host.backend(how, *signals)

    @rule(how=st.sampled_from(EDITS), at=st.integers(0, 100))
    def edit(self, how: Edit, at: int) -> None:
        self.host.edit_when_read(how, at)

    @rule(allowed=st.booleans())
    def permission(self, allowed: bool) -> None:
        self.host.permit(allowed)

    @rule(is_full=st.booleans())
    def disk(self, is_full: bool) -> None:
        self.host.fill_disk(is_full)

    @rule(row=st.integers(0, 20), at=st.integers(0, 2000))
    def damage(self, row: int, at: int) -> None:
        self.host.stop(signal.SIGTERM)
        self.host.damage(row, at)

    @rule()
    def start(self) -> None:
        self.host.start()

    @rule(seconds=st.floats(0, 0.6))
    def kill(self, seconds: float) -> None:
        self.host.start()
        time.sleep(seconds)
        self.host.stop(signal.SIGKILL)

    @rule()
    def stop(self) -> None:
        self.host.stop(signal.SIGTERM)

    @rule()
    def reload(self) -> None:
        self.host.reload()

    @rule()
    def wok_restarts(self) -> None:
        self.host.wok.restart()
        self.running.clear()

    @rule(seconds=st.sampled_from([-2, -1, 60, 3600]))
    def clock(self, seconds: int) -> None:
        self.host.wok.step_clock(seconds)

    @rule(seconds=st.floats(0, 0.3))
    def nothing(self, seconds: float) -> None:
        time.sleep(seconds)

    def teardown(self) -> None:
        if hasattr(self, "host"):
            try:
                self.host.prove()
            finally:
                self.host.__exit__()
                shutil.rmtree(self.folder)


def test_any_weather() -> None:
    """After any order of faults every record has arrived, once, and the counters are a recount."""
    run_state_machine_as_test(
        Weather,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            # A smaller example would take minutes to find: each step is one of a real process.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
