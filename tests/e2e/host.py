"""A host of its own: Debian under a systemd that is booted in a container, on this machine's network.

    with Host.boot(tools.debian(), tmp_path / "host") as host:
        host.run("dpkg", "-i", "/opt/wok-exporter.deb")
        host.run("systemctl", "start", "wok-exporter")
        assert "READY" in host.journal("wok-exporter")

`systemd-nspawn` starts it, without the help of a systemd outside, so that it works on a build machine too. It needs root. Servers in it
listen on this machine's loopback.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
BOOT_SECONDS = 90.0
RUN_SECONDS = 120.0
SEARCH_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Host:
    """A booted host: its files as seen from outside, and the process that is its first one."""

    root: Path
    leader: int

    @classmethod
    @contextmanager
    def boot(cls, base: Path, root: Path, *, binds: tuple[str, ...] = ()) -> Iterator[Host]:
        """Copy the system in `base` to `root`, boot it, and shut it down at the end.

        `binds` are read-only mounts, `outside:inside`. Raises TimeoutError with what the console said if it does not come up.
        """
        subprocess.run(["cp", "-a", "--reflink=auto", f"{base}/.", str(root)], check=True)
        name = f"wok-{uuid.uuid4().hex[:8]}"
        console = root.with_name(f"{root.name}.console")
        groups = _own_groups(name)
        with console.open("wb") as written:
            spawned = subprocess.Popen(
                [
                    *_joining(groups),
                    "systemd-nspawn",
                    f"--directory={root}",
                    f"--machine={name}",
                    "--register=no",
                    "--keep-unit",
                    "--console=pipe",
                    "--kill-signal=SIGRTMIN+3",
                    *(f"--bind-ro={bind}" for bind in binds),
                    "--boot",
                ],
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield cls(root, _leader(spawned, console))
        finally:
            _shut_down(spawned)
            for group in groups:
                remove_group(group)

    def run(self, *command: str, check: bool = True, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in the host to its end; unless `check` is off, AssertionError tells what it printed if it failed."""
        done = subprocess.run(
            [
                "nsenter",
                f"--target={self.leader}",
                "--all",
                "env",
                "-i",
                SEARCH_PATH,
                "LC_ALL=C.UTF-8",
                "HOME=/root",
                *command,
            ],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_SECONDS,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)} exited {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def path(self, inside: str) -> Path:
        """Return where a file of the host lies outside."""
        return self.root / inside.removeprefix("/")

    def journal(self, unit: str) -> str:
        """Return what a unit, and systemd about it, has written since the boot."""
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}").stdout


def _own_groups(name: str) -> list[Path]:
    """Make a control group for one host: two hosts in one group would take each other's services for their own."""
    parents = [CGROUPS] if (CGROUPS / "cgroup.procs").exists() else [CGROUPS / "systemd", CGROUPS / "unified"]
    groups = [parent / name for parent in parents if (parent / "cgroup.procs").exists()]
    for group in groups:
        group.mkdir()
    return groups


def _joining(groups: list[Path]) -> list[str]:
    """Return the beginning of a command that enters the groups before it becomes what follows."""
    entries = "".join(f"echo $$ > {group}/cgroup.procs && " for group in groups)
    return ["sh", "-c", f'{entries}exec "$@"', "sh"]


def remove_group(group: Path) -> None:
    """Remove a control group that holds nothing any more, and those in it."""
    for inner in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
        inner.rmdir()
    group.rmdir()


def _leader(spawned: subprocess.Popen[bytes], console: Path) -> int:
    """Wait until the host is up; return the pid of its first process."""
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline and spawned.poll() is None:
        children = Path(f"/proc/{spawned.pid}/task/{spawned.pid}/children").read_text().split()
        if children and _is_up(int(children[0])):
            return int(children[0])
        time.sleep(0.2)
    raise TimeoutError(
        f"the host did not come up; its console says:\n{console.read_text(errors='replace')[-4000:]}"
    )


def _is_up(leader: int) -> bool:
    asked = subprocess.run(
        [
            "nsenter",
            f"--target={leader}",
            "--all",
            "env",
            "-i",
            SEARCH_PATH,
            "systemctl",
            "is-system-running",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
    )
    return asked.stdout.strip() in {"running", "degraded"}


def _shut_down(spawned: subprocess.Popen[bytes]) -> None:
    if spawned.poll() is None:
        spawned.terminate()
    try:
        spawned.wait(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(spawned.pid, signal.SIGKILL)
        spawned.wait(timeout=30)


def missing() -> str | None:
    """Return what keeps this machine from booting a host, as a sentence that says how to mend it; None if nothing does."""
    if os.geteuid() != 0:
        return "a host of its own needs root: sudo make e2e"
    absent = [
        program for program in ("systemd-nspawn", "debootstrap", "nsenter") if shutil.which(program) is None
    ]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install systemd-container debootstrap util-linux"
    return None
