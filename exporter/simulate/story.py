"""The demo's story: the log of a KVM host on which three administrators work for forty seconds.

A generator without a clock: each line says when to write it, and the caller may wait that long, or
not. The same arguments give the same bytes. The order is that of a real Wok: a request's line is
written when the request ends, after its task has started, and a quick task has even ended. A task
that is running when wokd restarts has no end record, and only wok-error.log shows the restart.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from exporter.simulate.records import (
    ADA,
    FAILED,
    FINISHED,
    GRACE,
    JOSE,
    STARTED,
    Dialect,
    Failure,
    Params,
    Person,
    SimulatedLine,
    record,
    task_record,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class _Task:
    """A task of the story; its id is known only at the end, because ids follow
    the order of starts.
    """

    def __init__(self, at: float, boot: int, app: str, target_uri: str) -> None:
        self.order = (boot, at)
        self.app = app
        self.target_uri = target_uri
        self.id = 0


class _Stage:
    """Collects scenes in any order, also overlapping ones; `lines` returns them
    in the log's order.
    """

    def __init__(self, dialect: Dialect, start: datetime, seed: int) -> None:
        self.dialect = dialect
        self._start = start
        self._random = Random(seed)  # noqa: S311 (repeatable on purpose)
        self._moments: list[tuple[float, Literal["requests", "errors"], str, Callable[[], bytes]]] = []
        self._tasks: list[_Task] = []
        self._boot = 0

    def lines(self) -> Iterator[SimulatedLine]:
        ids = {0: count(1), 1: count(1)}
        for task in sorted(self._tasks, key=lambda task: task.order):
            task.id = next(ids[task.order[0]])
        for at, log, note, data in sorted(self._moments, key=lambda moment: moment[0]):
            yield SimulatedLine(at, log, data(), note)

    def uuid(self) -> str:
        return str(UUID(int=self._random.getrandbits(128), version=4))

    def jitter(self) -> float:
        return self._random.uniform(0.0, 0.2)

    def epoch(self, at: float) -> float:
        return self._start.timestamp() + at

    def request(
        self,
        at: float,
        person: Person,
        app: str,
        method: str,
        status: int,
        code: str,
        params: Params,
        text: str,
        note: str = "",
        error: Failure | None = None,
    ) -> None:
        """Write a request that ends at `at`."""

        def data() -> bytes:
            stamp = self._stamp(at)
            return record(self.dialect, stamp, app, method, status, person, code, params, text, error)

        self._moments.append((at, "requests", note, data))

    def task_starts(self, at: float, app: str, target_uri: str) -> _Task:
        """Start a task; the JSON dialect writes nothing."""
        task = _Task(at, self._boot, app, target_uri)
        self._tasks.append(task)
        if self.dialect == "rfc":
            self._moments.append((at, "requests", "", lambda: self._task(at, task, STARTED, None)))
        return task

    def task_ends(
        self, at: float, task: _Task, note: str = "", *, error: Failure | None = None, is_failed: bool = False
    ) -> None:
        """Write the end of a task, which may have failed without an error."""
        status = FAILED if error or is_failed else FINISHED
        self._moments.append((at, "requests", note, lambda: self._task(at, task, status, error)))

    def engine(self, at: float, *sentences: str, note: str = "") -> None:
        """Write lines of CherryPy's engine to wok-error.log."""
        when = self._local(at)
        stamp = f"[{when:%d}/{MONTHS[when.month - 1]}/{when:%Y:%H:%M:%S}]"
        for sentence in sentences:
            data = f"{stamp} ENGINE {sentence}".encode()
            self._moments.append((at, "errors", note, partial(bytes, data)))
            note = ""

    def restart(self, at: float, note: str) -> None:
        """Restart wokd: running tasks end without a record, and ids start again."""
        self.engine(at, "Caught signal SIGTERM.", "Bus STOPPING", "Bus STOPPED", "Bus EXITED", note=note)
        self.engine(at + 1.6, "Bus STARTING", "Serving on http://127.0.0.1:8010")
        self.engine(at + 1.8, "Bus STARTED", note="wokd is back")
        self._boot = 1

    def _task(self, at: float, task: _Task, status: int, error: Failure | None) -> bytes:
        return task_record(self.dialect, self._stamp(at), task.app, status, task.target_uri, task.id, error)

    def _local(self, at: float) -> datetime:
        return datetime.fromtimestamp(self.epoch(at), self._start.tzinfo)

    def _stamp(self, at: float) -> dict[str, str]:
        when = self._local(at)
        return {
            "date": f"{when:%Y-%m-%d}",
            "time": f"{when:%H:%M:%S}",
            "zone": f"{when:%Z}",
            "id": self.uuid(),
        }


def story(dialect: Dialect, *, start: datetime, seed: int = 1) -> Iterator[SimulatedLine]:
    """Yield the demo: forty seconds of three administrators at work, in the order of the log.

    Among it: clones with nested volume clones, one that works and one that fails; a migration that
    reports its failure twice; a quick snapshot whose record stands before its request; an upload;
    polls that start tasks nobody asked for; secrets in parameters; an update that restarts wokd, by
    which two tasks are lost. `start` must be aware: it gives the records their date, time and zone.
    `seed` varies ids and durations.
    """
    stage = _Stage(dialect, start, seed)
    stage.engine(0.0, "Bus STARTING", "Serving on http://127.0.0.1:8010", "Bus STARTED")
    _morning(stage)
    _upload(stage)
    _clone_that_works(stage)
    _failures(stage)
    _update_and_restart(stage)
    _afternoon(stage)
    yield from stage.lines()


def _login(stage: _Stage, at: float, person: Person, note: str) -> None:
    params = {"username": person.name}
    visitor = Person("N/A", person.address)
    stage.request(at, visitor, "wok", "POST", 200, "WOKROOT0001L", params, f"{person.name} signs in", note)


def _morning(stage: _Stage) -> None:
    _login(stage, 0.3, ADA, "ada logs in")
    # Wok 3.0.0 calls it an error of its own, with HTTP's 401 only in the answer
    status, code = (500, "WOKAUTH0008E") if stage.dialect == "json" else (401, "WOKAUTH0001E")
    stage.request(
        0.9, Person("N/A", JOSE.address), "wok", "POST", status, "WOKROOT0001L", {"username": "josé"},
        "josé signs in", "josé mistypes his password",
        Failure(code, {"username": "josé"}, "the password of josé is wrong"),
    )  # fmt: skip
    _login(stage, 1.6, JOSE, "josé logs in")

    uri = "/plugins/kimchi/vms/web01"
    task = stage.task_starts(2.2, "kimchi", uri)
    stage.request(
        2.3, ADA, "kimchi", "POST", 202, "KCHVM0001L",
        {
            "name": "web01",
            "template": "/plugins/kimchi/templates/debian",
            "graphics": {"type": "vnc", "passwd": "correct-horse-battery"},
        },
        "A new guest web01 from the template debian", "ada creates the guest web01, with a password for its screen",
    )  # fmt: skip
    stage.task_ends(5.2 + stage.jitter(), task, "web01 is there")

    stage.request(
        3.0, JOSE, "kimchi", "POST", 200, "KCHVM0004L", {"ident": "db01", "remote_host": ""}, "db01 is switched on",
        "josé starts db01",
    )  # fmt: skip
    uri = "/plugins/kimchi/vms/db01/snapshots/before-upgrade"
    task = stage.task_starts(3.6, "kimchi", uri)
    stage.task_ends(3.62, task, "a snapshot so quick that its record stands before its request")
    stage.request(
        3.65, JOSE, "kimchi", "POST", 202, "KCHSNAP0001L", {"vm": "db01", "name": "before-upgrade"},
        "A snapshot before-upgrade of db01", "josé takes a snapshot of db01",
    )  # fmt: skip
    stage.request(
        6.0, ADA, "kimchi", "POST", 200, "KCHVM0004L", {"ident": "web01", "remote_host": ""},
        "web01 is switched on", "ada starts web01",
    )  # fmt: skip


def _clone_that_works(stage: _Stage) -> None:
    uri = f"/plugins/kimchi/vms/web01-clone-{int(stage.epoch(6.8) * 1_000_000)}/clone"
    clone = stage.task_starts(6.8, "kimchi", uri)
    stage.request(
        6.85, ADA, "kimchi", "POST", 202, "KCHVM0009L", {"ident": "web01", "remote_host": ""},
        "A clone of web01", "ada clones web01, which has two disks",
    )  # fmt: skip
    disk = stage.uuid()
    for i, (begin, end) in enumerate(((7.0, 10.5), (10.55, 14.8))):
        nested_uri = f"/plugins/kimchi/storagepools/default/storagevolumes/{disk}-{i}.img/clone"
        nested = stage.task_starts(begin, "kimchi", nested_uri)
        stage.task_ends(end, nested, f"disk {i + 1} of 2 is copied")
    stage.task_ends(15.6 + stage.jitter(), clone, "the clone of web01 is ready")


def _upload(stage: _Stage) -> None:
    _login(stage, 8.0, GRACE, "grace logs in")
    volume = {"name": "installer.iso", "pool": "isos"}
    uri = "/plugins/kimchi/storagepools/isos/storagevolumes/installer.iso"
    task = stage.task_starts(8.7, "kimchi", uri)
    stage.request(
        8.75, GRACE, "kimchi", "POST", 202, "KCHVOL0001L", {**volume, "capacity": 734_003_200, "upload": True},
        "A new volume installer.iso in isos", "grace uploads an image, in four pieces",
    )  # fmt: skip
    for at in (9.9, 11.0, 12.1, 13.2):
        if at == 13.2:
            stage.task_ends(at - 0.02, task, "the upload is complete")
        stage.request(
            at, GRACE, "kimchi", "PUT", 200, "KCHVOL0003L", {"ident": "installer.iso", "pool": "isos", "size": ""},
            "A piece of installer.iso",
        )  # fmt: skip

    uri = "/plugins/kimchi/storagepools/default/storagevolumes/cloud.qcow2"
    task = stage.task_starts(14.2, "kimchi", uri)
    url = "https://grace:open-sesame@mirror.example/cloud.qcow2"
    stage.request(
        14.3, GRACE, "kimchi", "POST", 202, "KCHVOL0001L", {"name": "cloud.qcow2", "pool": "default", "url": url},
        "A new volume cloud.qcow2 in default", "grace downloads an image, with a password in its address",
    )  # fmt: skip
    stage.task_ends(19.0 + stage.jitter(), task, "the download is complete")


def _failures(stage: _Stage) -> None:
    stage.request(
        9.4, JOSE, "kimchi", "POST", 404, "KCHVM0004L", {"ident": "db1", "remote_host": ""}, "db1 is switched on",
        "josé starts a guest that is not there", Failure("KCHVM0002E", {"name": "db1"}, "there is no guest db1"),
    )  # fmt: skip
    uri = "/backup/create/" + stage.uuid()
    task = stage.task_starts(10.8, "ginger", uri)
    stage.request(
        10.9, JOSE, "ginger", "POST", 202, "GINHBK0002L", {"description": "before the upgrade"},
        "An archive of the configuration: before the upgrade", "josé saves the host's configuration",
    )  # fmt: skip
    stage.task_ends(13.6 + stage.jitter(), task, "the configuration is saved")

    uri = "/plugins/kimchi/vms/db01/migrate"
    task = stage.task_starts(12.3, "kimchi", uri)
    stage.request(
        12.4, JOSE, "kimchi", "POST", 202, "KCHVM0010L", {"ident": "db01", "remote_host": "kvm02", "user": "root"},
        "db01 moves to kvm02", "josé migrates db01 to kvm02",
    )  # fmt: skip
    why = "kvm02 closed the connection"
    stage.task_ends(17.3, task, "the migration fails, and says so twice", is_failed=True)
    error = Failure("KCHVM0058E", {"name": "db01", "err": why}, f"db01 could not move: {why}")
    stage.task_ends(17.31, task, error=error)

    uri = f"/plugins/kimchi/vms/legacy-clone-{int(stage.epoch(16.4) * 1_000_000)}/clone"
    task = stage.task_starts(16.4, "kimchi", uri)
    stage.request(
        16.45, ADA, "kimchi", "POST", 202, "KCHVM0009L", {"ident": "legacy", "remote_host": ""},
        "A clone of legacy", "ada clones legacy",
    )  # fmt: skip
    why = "no space is left in the pool default"
    error = Failure("KCHVM0035E", {"name": "legacy", "err": why}, f"legacy could not be cloned: {why}")
    stage.task_ends(19.6 + stage.jitter(), task, f"the clone of legacy fails: {why}", error=error)


def _update_and_restart(stage: _Stage) -> None:
    uri = "/plugins/gingerbase/host/swupdate"
    stage.task_starts(20.4, "gingerbase", uri)
    stage.request(
        20.5, GRACE, "gingerbase", "POST", 202, "GGBPKGUPD0001L", {"ident": ""}, "The host's software is updated",
        "grace updates the host, Wok itself included",
    )  # fmt: skip
    uri = "/plugins/gingerbase/host/swupdateprogress"
    for begin, end in ((21.2, 23.1), (22.4, 23.15)):
        poll = stage.task_starts(begin, "gingerbase", uri)
        stage.task_ends(end, poll, "a look at the progress is a task, too: nobody asked for it")
    uri = "/swaps/file_loc/"
    swap = stage.task_starts(22.0, "ginger", uri)
    stage.request(
        22.1, JOSE, "ginger", "POST", 202, "GINSP0001L", {"file_loc": "/swap2", "type": "file", "size": 4096},
        "A swap file /swap2", "josé adds a swap file",
    )  # fmt: skip
    stage.task_ends(23.8 + stage.jitter(), swap, "the swap file is in use")

    uri = f"/plugins/kimchi/vms/web01-clone-{int(stage.epoch(24.5) * 1_000_000)}/clone"
    stage.task_starts(24.5, "kimchi", uri)
    stage.request(
        24.55, ADA, "kimchi", "POST", 202, "KCHVM0009L", {"ident": "web01", "remote_host": ""},
        "A clone of web01", "ada clones web01 once more",
    )  # fmt: skip
    stage.restart(
        27.0, "the update restarts wokd: the update and ada's clone are lost, and no record says so"
    )


def _afternoon(stage: _Stage) -> None:
    _login(stage, 30.0, ADA, "ada logs in again")
    uri = f"/plugins/kimchi/vms/web01-clone-{int(stage.epoch(30.8) * 1_000_000)}/clone"
    clone = stage.task_starts(30.8, "kimchi", uri)
    stage.request(
        30.85, ADA, "kimchi", "POST", 202, "KCHVM0009L", {"ident": "web01", "remote_host": ""},
        "A clone of web01", "ada clones web01 for the third time",
    )  # fmt: skip
    nested_uri = f"/plugins/kimchi/storagepools/default/storagevolumes/{stage.uuid()}-0.img/clone"
    nested = stage.task_starts(31.0, "kimchi", nested_uri)
    stage.task_ends(34.6, nested, "the disk is copied")
    stage.task_ends(35.8 + stage.jitter(), clone, "the clone of web01 is ready")

    uri = "/plugins/gingerbase/debugreports/after-update"
    report = stage.task_starts(31.6, "gingerbase", uri)
    stage.request(
        31.7, GRACE, "gingerbase", "POST", 202, "GGBDR0001L", {"name": "after-update"},
        "A debug report after-update", "grace collects a debug report",
    )  # fmt: skip
    stage.task_ends(37.0 + stage.jitter(), report, "the debug report is ready")

    uri = "/lvs/vg_name/data"
    volume = stage.task_starts(33.0, "ginger", uri)
    stage.request(
        33.1, JOSE, "ginger", "POST", 202, "GINLV0001L", {"vg_name": "data", "size": "40G"},
        "A logical volume in data", "josé creates a logical volume",
    )  # fmt: skip
    why = "data has 12 GiB left"
    error = Failure("GINLV00003E", {"err": why}, f"the logical volume could not be created: {why}")
    stage.task_ends(34.1, volume, f"it fails: {why}", error=error)
    stage.request(
        38.2, JOSE, "kimchi", "POST", 200, "KCHVM0005L", {"ident": "db01", "remote_host": ""},
        "db01 is switched off", "josé switches db01 off",
    )  # fmt: skip
    stage.request(
        39.5, Person("N/A", ADA.address), "wok", "POST", 200, "WOKROOT0002L", {"username": "ada"}, "ada signs out",
        "ada logs out",
    )  # fmt: skip
