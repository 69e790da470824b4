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

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.weather import REPLIES, Backend, Host, Rotation

EXAMPLES = int(os.environ.get("WEATHER_EXAMPLES", "4"))
STEPS = int(os.environ.get("WEATHER_STEPS", "12"))
BACKENDS: list[Backend] = [*REPLIES]
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
            self.host.request(self.running[-1])

    @rule(count=st.integers(1, 40), failed=st.booleans())
    def ends(self, count: int, failed: bool) -> None:
        for name in self.running[:count]:
            self.host.end(name, failed=failed)
        del self.running[:count]

    @rule()
    def torn_line(self) -> None:
        self.host.tear()

    @rule(how=st.sampled_from(ROTATIONS))
    def rotation(self, how: Rotation) -> None:
        self.host.rotate(how)

    @rule(how=st.sampled_from(BACKENDS))
    def backend(self, how: Backend) -> None:
        self.host.backend(how)

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
        self.host.restart_wok()
        self.running.clear()

    @rule(seconds=st.sampled_from([-2, -1, 60, 3600]))
    def clock(self, seconds: int) -> None:
        self.host.step_clock(seconds)

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
            suppress_health_check=list(HealthCheck),
        ),
    )
