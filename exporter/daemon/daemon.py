"""The daemon: the threads that read, deliver and serve, from the first line to a stop.

The main thread reads and commits. Each signal has a thread that delivers. The HTTP server answers
from a database reader of its own. The threads share only the store and two events, so a backend
that hangs, a slow scrape or a large page delays nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Protocol

from exporter import __version__
from exporter.config.config import logs_of_this_host
from exporter.config.options import Config
from exporter.config.values import Address
from exporter.daemon.deliveries import STOP_SECONDS, Deliveries
from exporter.daemon.input_health import input_problem
from exporter.deliver import otlp_env
from exporter.http.auth import AuthError, BasicAuth
from exporter.http.compression import compressed
from exporter.http.cross_site import for_own_site
from exporter.http.host_check import HostCheck, for_hosts, readyz_for_hosts
from exporter.http.routes import Handler, healthz_handler
from exporter.http.server import Server, ServerError, Tls
from exporter.metrics.scrape import StoreCollector, metrics_handler
from exporter.pipeline.attempt import Attempts
from exporter.pipeline.commit_builder import CommitBuilder
from exporter.pipeline.cycles import collect_seldom
from exporter.pipeline.from_config import messages_of, processing_config_of, tail_of, telemetry_of
from exporter.pipeline.pipeline import Pipeline, Progress
from exporter.pipeline.reader import InProcessReader
from exporter.records import NANOS, LastReload, Live, Problem
from exporter.source.tail import Tail
from exporter.store.writer import Loaded, Store, StoreError
from exporter.web.api import About, api_routes
from exporter.web.page import page_routes
from exporter.web.runbooks import runbook_routes
from exporter.wok.operations import Operations

STORE_WAIT_SECONDS_MAX = 30.0
"""The longest wait between attempts after the store has failed, as on a full disk."""
TURN_SECONDS_MAX = 30.0
"""A turn takes milliseconds. One that takes this long hangs in a disk, a lock or a network file
system.
"""

START_ERRORS = (StoreError, otlp_env.OtlpConfigError, ServerError, AuthError)
"""What prevents a start; their messages are for the administrator."""

SEARCH_SECONDS = 2.0
"""How often Wok's logs are looked for in their default places, while there is
nothing else to do.
"""

log = logging.getLogger(__name__)


class Stopped(Protocol):
    """What stops a daemon: an Event, or anything else that can be queried and waited for."""

    def is_set(self) -> bool:
        """Return whether to stop now."""

    def wait(self, timeout: float, /) -> object:
        """Return when it is set, or earlier; after `timeout` seconds at the latest."""


class Daemon:
    """Everything that `wok-exporter run` runs, created and released in the right order.

    `run` returns when `stopped` is set. Raises START_ERRORS if the start must fail. What fails
    later is reported and retried.
    """

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        *,
        wall: Callable[[], int] = time.time_ns,
        root: Path = Path("/"),
    ) -> None:
        self.last_reload = LastReload(is_successful=True, success=wall() / NANOS)
        assert config.state is not None, "a daemon has a state of its own"
        self._config = config
        self._environ = environ
        self._wall = wall
        self._root = root
        self._next_search = 0.0  # monotonic
        self._next_config: Config | None = None  # with the logs that are followed after one more turn
        self._resources = ExitStack()
        self._trouble = ""
        self._behind = 0
        self._is_ready = False
        self._turn_since: float | None = None  # monotonic; None between turns
        self._tail: Tail | None = None
        self._reader: InProcessReader | None = None
        self._noted: Problem | None = None
        self._serving: Thread | None = None
        with self._resources:
            self.store = self._resources.enter_context(closing(_store(config, config.state)))
            self._deliveries = Deliveries(self.store, environ)
            self._pipeline = self._resources.enter_context(closing(self._make_pipeline()))
            self.server = self._serve()
            self._resources = self._resources.pop_all()

    def _make_pipeline(self) -> Pipeline:
        config = self._config
        first = config.first_time(self._wall())
        messages = messages_of(config)
        processing_config = processing_config_of(config, messages, skip_until=first or 0)

        assert config.state is not None, "a daemon has a state of its own"
        attempts = Attempts(config.state / "line-being-read")

        def open_log(position: str) -> Tail:
            try:
                self._tail = tail_of(config, position, from_end=first is None and not position)
            except ValueError as error:
                raise StoreError(
                    f"{config.state} contains the state of a replay, not of a daemon: set"
                    " --state to another directory"
                ) from error
            if position and self._reader is None and config.origins["start_at"] != "default":
                log.warning(
                    "%s is ignored: %s has the position in the log already. To add older records to the page, `tasks`"
                    " and `trace`, stop wok-exporter and run `wok-exporter backfill`. To send them, run `wok-exporter"
                    " replay FILE ...`",
                    config.origins["start_at"],
                    config.state,
                )
            return self._tail

        def open_reader(loaded: Loaded) -> InProcessReader:
            errors = partial(Tail, config.wok_error_log) if config.wok_error_log else None
            self._reader = InProcessReader(
                processing_config, loaded, log=open_log, errors=errors, wall=self._wall, attempts=attempts
            )
            return self._reader

        commit_builder = CommitBuilder(
            telemetry_of(config, messages, config.log.name), signals=self._deliveries.signals
        )
        return Pipeline(self.store, commit_builder, open_reader, now=lambda: self._wall() / NANOS)

    def _serve(self) -> Server | None:
        config = self._config
        if config.listen is None:
            return None
        # A reader serves one request at a time: a slow page must not delay a scrape.
        reader, page_reader = (self._resources.enter_context(closing(self.store.reader())) for _ in range(2))
        collector = StoreCollector(
            reader.snapshot,
            Operations.load(),
            apps=config.apps,
            behind_bytes=lambda: self._behind,
            problems=self._reading_problems,
            last_reload=lambda: self.last_reload,
            version=__version__,
        )
        hosts = HostCheck(config.listen.host, config.hosts, has_auth=config.auth_file is not None)
        probes: dict[str, Handler] = {
            "/metrics": metrics_handler(collector),
            "/healthz": healthz_handler(),
            "/readyz": readyz_for_hosts(lambda: [problem.sentence for problem in self.problems()], hosts),
        }
        routes = for_own_site(probes, linked=True)
        # Also without the page: alerts link to them.
        routes |= for_hosts(for_own_site(runbook_routes(), linked=True), hosts)
        if config.ui:
            about = About(
                version=__version__,
                host=config.host_name,
                zone=config.timezone,
                log_path=str(config.log),
                trace_url=config.trace_url,
            )
            api = compressed(for_own_site(api_routes(page_reader, about, self.live), linked=False))
            routes |= for_hosts(for_own_site(page_routes(), linked=True) | api, hosts)
        server = _server(config, config.listen, routes)
        self._resources.callback(self._stop_serving, server)
        return server

    def _stop_serving(self, server: Server) -> None:
        server.close()
        if self._serving is not None:
            # The next daemon may need the same port, and responses in flight need their readers.
            self._serving.join(STOP_SECONDS)

    def run(self, stopped: Stopped) -> None:
        """Read, deliver and serve until `stopped`; then release everything."""
        with self.at_work():
            self.read(stopped)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Deliver and serve inside the block, and release everything at its end."""
        with self._resources:
            self._is_ready = self.store.is_ready
            if self.server is not None:
                self._serving = Thread(target=self.server.serve, name="serve", daemon=True)
                self._serving.start()
            self._deliveries.start()
            try:
                yield
            finally:
                self._deliveries.stop()

    def read(self, stopped: Stopped, turned: Callable[[bool], None] = lambda _: None) -> None:
        """Read until `stopped`; `turned` is called after each turn, with False if the store failed.

        A turn reads what there is, which may be nothing, and commits it.
        """
        collect_seldom()
        wait_seconds = 1.0
        while not stopped.is_set():
            try:
                self._turn_since = time.monotonic()
                if self._trouble:
                    self._pipeline.restart()
                progress = self._step()
                self._turn_since = None
            except StoreError as error:
                self._turn_since = None
                if not self._trouble:
                    log.error("%s; reading is paused until the state can be written", error)  # noqa: TRY400 - expected
                self._trouble = str(error)
                turned(False)
                stopped.wait(wait_seconds)
                wait_seconds = min(wait_seconds * 2, STORE_WAIT_SECONDS_MAX)
                continue
            if self._trouble:
                log.warning("the state can be written again: reading continues")
                self._trouble, wait_seconds = "", 1.0
            turned(True)
            if progress.caught_up or not progress.committed:
                stopped.wait(self._config.poll_interval.total_seconds())

    def _step(self) -> Progress:
        progress = self._pipeline.step()
        self._behind = progress.behind
        if progress.committed:
            self._deliveries.wake()
        if progress.caught_up and not self._is_ready and not (self._tail and self._tail.problem):
            self.store.mark_ready()
            self._is_ready = True
            log.info("backlog read; following %s", self._config.log)
        if progress.caught_up:
            self._follow_found_logs()
            self._search_logs()
        problem = self._input_problem()
        # The counts in the sentence grow: it is logged once, until it is over.
        if problem is not None and self._noted is None:
            log.warning("%s", problem.sentence)
        self._noted = problem
        return progress

    def _search_logs(self) -> None:
        """Look for the logs that `auto` means now: Wok was installed, or upgraded to a release with
        another log.
        """
        config = self._config
        if not config.automatic or time.monotonic() < self._next_search:
            return
        self._next_search = time.monotonic() + SEARCH_SECONDS
        found = logs_of_this_host(self._root)._asdict()
        others = {
            key: path
            for key, path in found.items()
            if key in config.automatic and path not in {None, getattr(config, key)}
        }
        if others:
            self._next_config = replace(config, **others)

    def _follow_found_logs(self) -> None:
        """Follow the logs that were found before this turn.

        The old log may have grown between its last read and the search. What was written before the
        new log appeared is only read for certain by a turn that began after the search.
        """
        config, self._next_config = self._next_config, None
        if config is None:
            return
        if config.log != self._config.log:
            log.info(
                "following %s, which is Wok's log now; %s was read to its end", config.log, self._config.log
            )
        if config.wok_error_log != self._config.wok_error_log:
            log.info("reading exceptions and wokd restarts from %s", config.wok_error_log)
        if config.wok_access_log != self._config.wok_access_log:
            log.info("looking up the true status of requests in %s", config.wok_access_log)
        self._config = config
        self._pipeline.close()
        self._pipeline = self._resources.enter_context(closing(self._make_pipeline()))

    def _input_problem(self) -> Problem | None:
        if self._reader is None or not self._is_ready:
            return None
        return input_problem(self._reader.facts, self._config.log, self._config.start_at)

    def require_writable_state(self) -> None:
        """Raise StoreError if the state cannot be written, so that the next daemon could not start
        from it.
        """
        if self._trouble:
            raise StoreError(self._trouble)
        self.store.count({})

    def _reading_problems(self) -> dict[str, str]:
        """Return what prevents reading, by the kinds of `wok_exporter_reading_problem`."""
        known = {"log": self._tail.problem if self._tail else "", "state": self._trouble}
        # Read once: the pipeline's thread may end its turn meanwhile.
        since = self._turn_since
        if since is not None and (seconds := time.monotonic() - since) > TURN_SECONDS_MAX:
            known["pipeline"] = (
                f"the pipeline hangs: its last turn began {seconds:.0f} s ago and has not ended. Check the disks of"
                f" {self._config.log} and {self._config.state}, then restart wok-exporter"
            )
        return {kind: said for kind, said in known.items() if said}

    def problems(self) -> list[Problem]:
        """Return what prevents progress and what to do, the worst first."""
        problems = [Problem(said, "") for said in self._reading_problems().values()]
        if found := self._input_problem():
            problems.append(found)
        if not self._is_ready and not problems:
            problems.append(
                Problem(
                    f"still reading the backlog: {self._behind:,} bytes to go",
                    "Wait. The metrics of tasks appear when it is done.",
                )
            )
        return problems + self._deliveries.problems()

    def live(self) -> Live:
        """Return what this process knows besides its store, now."""
        deliveries = {signal: worker.status for signal, worker in self._deliveries.by_signal.items()}
        return Live(self._behind, deliveries, self.problems())

    def announcement(self) -> list[str]:
        """Return lines for the log: what is read, where it is sent, where it is served."""
        config = self._config
        zone = config.timezone or "that of this host"
        lines = [f"reading {config.log} (time zone: {zone}); state in {config.state}"]
        if config.wok_error_log is not None:
            lines.append(f"reading exceptions and wokd restarts from {config.wok_error_log}")
        if config.wok_access_log is not None:
            lines.append(f"looking up the true status of requests in {config.wok_access_log}")
        lines += [
            f"sending {signal} to {endpoint}" for signal, endpoint in self._deliveries.endpoints.items()
        ]
        if not self._deliveries.endpoints:
            why = otlp_env.why_unconfigured(self._environ)
            lines.append(f"sending no traces and log records: {why}; metrics are served anyway")
        if self.server is not None and config.listen is not None:
            scheme = "https" if config.tls_certificate else "http"
            place = config.listen._replace(port=self.server.port)
            lines.append(f"serving {scheme}://{place}/metrics, /healthz and /readyz")
            if config.ui:
                lines.append(f"the page: {scheme}://{place}/")
        return lines


def validate(config: Config, environ: Mapping[str, str]) -> None:
    """Raise what a start would raise, as far as can be known without one.

    These are errors in OTEL_* variables (OtlpConfigError), in the server's certificate
    (ServerError) and in its user file (AuthError). Nothing is connected to or stored.
    """
    for signal in otlp_env.configured(environ):
        otlp_env.read_settings(signal, environ)
    if config.listen is not None:
        # On any free port of this host: a running daemon may use the configured one.
        _server(config, Address("127.0.0.1", 0), {}).close()


def _server(config: Config, listen: Address, routes: Mapping[str, Handler]) -> Server:
    certificate = config.tls_certificate
    return Server(
        listen.host,
        listen.port,
        routes,
        tls=Tls(certificate, config.tls_key or certificate) if certificate else None,
        auth=BasicAuth.load(config.auth_file) if config.auth_file else None,
        public_paths=("/healthz", *(("/metrics", "/readyz") if config.open_metrics else ())),
    )


def _store(config: Config, directory: Path) -> Store:
    return Store(
        directory,
        journal_rows_max=config.journal_rows_max,
        journal_bytes_max=config.journal_bytes_max,
        requests_kept=config.history_requests,
        tasks_kept=config.history_tasks,
        history_bytes_max=config.history_bytes_max,
        on_broken=config.on_broken_state,
    )
