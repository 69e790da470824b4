"""`run`: one daemon after another, as a service manager expects it: ready, alive, reloaded,
stopped.

* *Ready* is reported after the first turn of the pipeline: the state is recovered, the server
  listens, and the log is open. A missing log does not delay the start. Wok creates it with its
  first request, which may be tomorrow, and a host must not boot into a failed unit for that. The
  status says that the log is missing.
* *Alive* is reported by turns of the pipeline only, so that no other thread hides a turn that hangs
  in a read, a lock, a commit or a log message. A turn whose commit failed counts: it ended,
  reported the error and will be retried. The watchdog is for hangs. A restart frees no space on a
  full disk, and would stop the metrics that report it.
* *A reload* reads and validates the whole configuration while the daemon runs. An invalid one is
  reported and changes nothing. A valid one is rejected while the state cannot be written, because
  the next start would fail. Otherwise the daemon stops, and the next one starts from the store,
  like any start: there is no second way to recover. If that start fails (another program has the
  new port), the previous configuration is started again.

A reload cannot change environment variables, which stay those of the start, or the state.
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
from exporter.records import LastReload
from exporter.store.reader import Reader
from exporter.store.writer import StoreError

STATUS_SECONDS = 2.0
"""How often the status line for the manager is computed; it is sent when it has changed."""

log = logging.getLogger(__name__)


class Service:
    """Runs a daemon until `asked` to stop, and creates the next one when asked to reload.

    `again` reads the configuration and raises ConfigError; `in_force` is called with a
    configuration that took effect. Raises START_ERRORS if the first daemon cannot start, or none
    after a reload.
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
        last = self._run(Daemon(self._config, self._environ))
        while self._next is not None and not self._asked.is_set():
            last = self._run(self._begun_again(self._next, last))

    def is_set(self) -> bool:
        """Return whether the running daemon must stop."""
        return self._asked.is_set() or self._next is not None

    def wait(self, timeout: float) -> None:
        """Wait for a request to stop or reload, at most `timeout` seconds and as long as the
        watchdog allows.
        """
        if not self.is_set():
            self._asked.wait(min(timeout, self._manager.pace_seconds))

    def _run(self, daemon: Daemon) -> LastReload:
        for line in daemon.announcement():
            log.info("%s", line)
        with daemon.at_work(), closing(daemon.store.reader()) as reader:
            daemon.read(self, lambda is_whole: self._turned(daemon, reader, is_whole=is_whole))
            if self._next is None or self._asked.is_set():
                self._manager.stopping("stopping")
        return daemon.last_reload

    def _turned(self, daemon: Daemon, reader: Reader, *, is_whole: bool) -> None:
        if is_whole and not self._is_ready:
            self._end_of_start(daemon, reader)
        elif time.monotonic() - self._looked_at >= STATUS_SECONDS:
            self._look(daemon, reader)
        self._manager.alive()
        if self._asked.reload and not self.is_set():
            self._asked.reload = False
            self._reload(daemon)
            # A rejection ends the reload; it does not make a daemon ready that was not.
            if self._next is None:
                daemon.last_reload = daemon.last_reload._replace(is_successful=False)
            if self._next is None and (is_whole or self._is_ready):
                self._end_of_start(daemon, reader)

    def _end_of_start(self, daemon: Daemon, reader: Reader) -> None:
        status = self._line(daemon, reader)
        # If the manager did not receive it, it is sent again after the next turn.
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
        return f"{self._refusal}; running with the previous configuration: {line}" if self._refusal else line

    def _reload(self, daemon: Daemon) -> None:
        """Find the next configuration, or report why there is none."""
        self._manager.reloading("reloading the configuration")
        log.info("reloading the configuration; environment variables change only with a restart")
        try:
            config = self._again()
            _require_state(config, self._config.state)
            validate(config, self._environ)
            daemon.require_writable_state()
        except ConfigError as error:
            self._refuse(error.mistakes)
        except START_ERRORS as error:
            self._refuse([str(error)])
        except Exception as error:  # noqa: BLE001 - a reload never ends a daemon
            self._refuse([_unexpected(error)])
        else:
            self._next = config

    def _begun_again(self, config: Config, last: LastReload) -> Daemon:
        """Return the next daemon: with this configuration, or else with the one before."""
        before, self._config, self._next = self._config, config, None
        self._is_ready = False
        try:
            daemon = Daemon(config, self._environ)
        except START_ERRORS as error:
            self._refuse([str(error)])
        except Exception as error:  # noqa: BLE001 - a reload never ends a daemon
            self._refuse([_unexpected(error)])
        else:
            return self._reloaded(daemon, before)
        self._config = before
        daemon = Daemon(before, self._environ)
        daemon.last_reload = last._replace(is_successful=False)
        return daemon

    def _reloaded(self, daemon: Daemon, before: Config) -> Daemon:
        config = self._config
        self._refusal = ""
        self._in_force(config)
        changed = [key for key in OPTIONS if getattr(config, key) != getattr(before, key)]
        log.info("reloaded; changed settings: %s", ", ".join(changed) or "none")
        return daemon

    def _refuse(self, mistakes: Sequence[str]) -> None:
        for mistake in mistakes:
            log.error("%s", mistake)
        log.error("reload rejected; still running with the previous configuration")
        more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
        self._refusal = f"reload rejected: {mistakes[0]}{more}"


def _unexpected(error: Exception) -> str:
    log.debug("an unexpected error of a reload", exc_info=error)
    return f"the configuration cannot be used: {type(error).__name__}: {error}"


def _require_state(config: Config, state: Path | None) -> None:
    if config.state != state:
        mistake = (
            f"{config.origins['state']}: a reload cannot move the state from {state} to {config.state}:"
            " restart wok-exporter instead"
        )
        raise ConfigError([mistake])
