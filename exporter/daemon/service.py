"""`run`: one daemon after another, as a service manager wants it: ready, alive, reloaded, stopped.

* *Ready* is said after the first turn of the pipeline: the state is recovered, the server listens, and the log is
  open. A log that is not there does not hold up the start: Wok writes it with the first request it serves, which
  may be tomorrow, and a host must not boot into a failed unit for that. The status says that it is waited for.
* *Alive* is said by turns of the pipeline, and by nothing else: a turn that hangs in a read, a lock, a commit or a
  message to the journal is not covered up by another thread. A turn that the store has failed counts: it came to
  its end, said what is wrong, and will be tried again. The watchdog is for what hangs; a restart makes no room on a
  full disk, and would take away the metrics that tell of it.
* *A reload* reads the configuration again and proves it wholly while the daemon goes on. A bad one is told and
  changes nothing, and nor does a good one while the state cannot be written: no start would come from that. Else the
  daemon is ended as by a stop, and the next one begins from the store, as a start does: there is no other recovery.
  Should that start fail after all (another program has the new port), the configuration of before is started again.

What a reload cannot change: the variables of the environment, which are those of the start, and the state.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

from exporter.config.config import ConfigError
from exporter.config.options import OPTIONS, Config
from exporter.daemon.daemon import START_ERRORS, Daemon, validate
from exporter.daemon.signals import SignalFlags
from exporter.daemon.status_line import status_line
from exporter.daemon.systemd import ServiceManager
from exporter.store.reader import Reader
from exporter.store.writer import StoreError

STATUS_SECONDS = 2.0
"""How often the manager's line on us is looked over; it is sent when it says something else."""

log = logging.getLogger(__name__)


class Service:
    """Runs a daemon until `asked` to stop, and makes the next one when asked to reload.

    `again` reads the configuration anew and raises ConfigError; `in_force` is told of one that is now in force.
    Raises START_ERRORS when the first daemon cannot start, or none at all after a reload.
    """

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        manager: ServiceManager,
        asked: SignalFlags,
        *,
        again: Callable[[], Config],
        in_force: Callable[[Config], None],
    ) -> None:
        self._config = config
        self._environ = environ
        self._manager = manager
        self._asked = asked
        self._again = again
        self._in_force = in_force
        self._next: Config | None = None
        self._refusal = ""
        self._is_ready = False
        self._status = ""
        self._looked_at = 0.0

    def run(self) -> None:
        """Run to the end."""
        self._run(Daemon(self._config, self._environ))
        while self._next is not None and not self._asked.is_set():
            self._run(self._begun_again(self._next))

    def is_set(self) -> bool:
        """Return whether the daemon that runs has to end."""
        return self._asked.is_set() or self._next is not None

    def wait(self, timeout: float) -> None:
        """Wait until something is asked, at most so long, and no longer than the watchdog allows."""
        if not self.is_set():
            self._asked.wait(min(timeout, self._manager.pace_seconds))

    def _run(self, daemon: Daemon) -> None:
        for line in daemon.announcement():
            log.info("%s", line)
        with daemon.at_work(), closing(daemon.store.reader()) as reader:
            daemon.read(self, lambda is_whole: self._turned(daemon, reader, is_whole=is_whole))
            if self._next is None or self._asked.is_set():
                self._manager.stopping("stopping")

    def _turned(self, daemon: Daemon, reader: Reader, *, is_whole: bool) -> None:
        if is_whole and not self._is_ready:
            self._end_of_start(daemon, reader)
        elif time.monotonic() - self._looked_at >= STATUS_SECONDS:
            self._look(daemon, reader)
        self._manager.alive()
        if self._asked.reload and not self.is_set():
            self._asked.reload = False
            self._reload(daemon)
            # A refusal ends the reload; it makes nothing ready that was not.
            if self._next is None and (is_whole or self._is_ready):
                self._end_of_start(daemon, reader)

    def _end_of_start(self, daemon: Daemon, reader: Reader) -> None:
        status = self._line(daemon, reader)
        # Not heard, it is said again after the next turn.
        self._is_ready = self._manager.ready(status)
        self._status = status

    def _look(self, daemon: Daemon, reader: Reader) -> None:
        status = self._line(daemon, reader)
        if status != self._status and self._manager.say(status):
            self._status = status

    def _line(self, daemon: Daemon, reader: Reader) -> str:
        if not self._manager.is_there:
            return ""
        self._looked_at = time.monotonic()
        overview = None
        with suppress(StoreError):
            overview = reader.overview()
        line = status_line(self._config.log, daemon.live(), overview)
        return f"{self._refusal}; going on as before: {line}" if self._refusal else line

    def _reload(self, daemon: Daemon) -> None:
        """Find the next configuration, or tell why there is none."""
        self._manager.reloading("reading the configuration again")
        log.info("reading the configuration again; the variables of the environment stay those of the start")
        try:
            config = self._again()
            _require_state(config, self._config.state)
            validate(config, self._environ)
            daemon.require_writable_state()
        except ConfigError as error:
            self._refuse(error.mistakes)
        except START_ERRORS as error:
            self._refuse([str(error)])
        else:
            self._next = config

    def _begun_again(self, config: Config) -> Daemon:
        before, self._config, self._next = self._config, config, None
        self._is_ready = False
        try:
            daemon = Daemon(config, self._environ)
        except START_ERRORS as error:
            self._refuse([str(error)])
            self._config = before
            return Daemon(before, self._environ)
        self._refusal = ""
        self._in_force(config)
        changed = [key for key in OPTIONS if getattr(config, key) != getattr(before, key)]
        log.info("the new configuration is in force; changed: %s", ", ".join(changed) or "nothing")
        return daemon

    def _refuse(self, mistakes: Sequence[str]) -> None:
        for mistake in mistakes:
            log.error("%s", mistake)
        log.error("the reload is refused: the configuration of before goes on")
        more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
        self._refusal = f"reload refused: {mistakes[0]}{more}"


def _require_state(config: Config, state: Path | None) -> None:
    if config.state != state:
        mistake = (
            f"{config.origins['state']}: a reload cannot move the state from {state} to {config.state}:"
            " restart wok-exporter for that"
        )
        raise ConfigError([mistake])
