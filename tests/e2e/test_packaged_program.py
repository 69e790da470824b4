"""The program in the packages: what it carries, what it needs, and that it does what the checkout's does, without any Python."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import stat
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest

from exporter import __version__
from exporter.simulate.story import story
from tests.e2e.packaged import C_LIBRARY, Bare, Packages, build, needs_root, output, programs
from tests.program import SAME, environ, request_line, run, wait_until
from tests.sink import Sink

CORPUS = Path(__file__).parents[3] / "shared" / "corpus"
LOGS = sorted((*CORPUS.glob("*/user-requests.data"), *CORPUS.glob("*/wok-req.log")))
"""What real releases wrote, where it lies beside the checkout."""
LINTIAN_TAGS = {
    # it carries its own Python, as hypervisors have old ones; `make packages` is to be repeated when those libraries are mended
    "embedded-library",
    "copyright-file-contains-full-apache-2-license",  # the same text serves the .rpm, and hosts without Debian's common licences
    "hardening-no-pie",  # PyInstaller's loader is made so
    "library-not-linked-against-libc",  # small modules of Python that need nothing of it
    "shared-library-lacks-prerequisites",
    "maintainer-script-calls-systemctl",  # one script serves dpkg and rpm
    "no-changelog",  # CHANGELOG.md is for both
    "wrong-name-for-upstream-changelog",
    "non-standard-file-perm",  # the file with credentials
}


@pytest.fixture(name="bare", scope="module")
def _bare(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Bare:
    needs_root()
    return Bare(tmp_path_factory.mktemp("bare"), packages.deb)


def test_the_same_sources_are_the_same_packages(packages: Packages, tmp_path: Path) -> None:
    """Built again, both packages are the same, byte for byte."""
    again = build(tmp_path, 1)

    for first, second in ((packages.deb, again.deb), (packages.rpm, again.rpm)):
        assert first.name == second.name
        assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()


def test_both_packages_hold_the_same_files(packages: Packages, bare: Bare) -> None:
    """Every file of the .deb is in the .rpm with the same mode, and none beside; the one with credentials is root's alone.
    Only zsh has its completions elsewhere in Fedora.
    """
    query = "[%{FILENAMES} %{FILEMODES:perms}\n]"
    listed = output("rpm", "--query", "--package", "--queryformat", query, packages.rpm).splitlines()
    in_rpm = {
        name.replace("/zsh/site-functions/", "/zsh/vendor-completions/"): mode
        for name, mode in map(str.split, listed)
        if mode[0] == "-"
    }
    in_deb = {
        f"/{path.relative_to(bare.root)}": stat.filemode(path.lstat().st_mode)
        for path in bare.unpacked
        if path.is_file() and not path.is_symlink()
    }

    assert in_rpm == in_deb
    assert in_rpm["/etc/default/wok-exporter"] == "-rw-------"


def test_configuration_is_marked_as_such(packages: Packages) -> None:
    """What an administrator edits is a configuration file for dpkg and for rpm."""
    ours = ["/etc/default/wok-exporter", "/etc/wok-exporter.toml"]

    assert sorted(output("dpkg-deb", "--info", packages.deb, "conffiles").split()) == ours
    assert sorted(output("rpm", "--query", "--package", "--configfiles", packages.rpm).split()) == ours


def test_they_need_a_c_library_and_say_which(packages: Packages, bare: Bare) -> None:
    """All that the program is linked to is carried, or is the C library or zlib; the packages ask for the newest version that is used."""
    tree = bare.root / "usr/libexec/wok-exporter"
    carried = {path.name for path in tree.rglob("*.so*")}
    needed, versions = set(), set()
    for path in programs(tree):
        needed |= set(re.findall(r"\(NEEDED\).*\[(.+)\]", output("readelf", "--dynamic", path)))
        needs = output("readelf", "--version-info", path).partition("Version needs section")[2]
        versions |= {tuple(map(int, found)) for found in re.findall(r"GLIBC_(\d+)\.(\d+)", needs)}
    newest = ".".join(map(str, max(versions)))

    assert {name for name in needed - carried if not C_LIBRARY.fullmatch(name)} <= {"libz.so.1"}
    assert output("dpkg-deb", "--field", packages.deb, "Depends").strip() == f"libc6 (>= {newest}), zlib1g"
    asked = set(output("rpm", "--query", "--package", "--requires", packages.rpm).splitlines())
    assert {name for name in asked if not name.startswith("rpmlib(")} == {
        f"libc.so.6(GLIBC_{newest})(64bit)",
        "libz.so.1()(64bit)",
    }


def test_no_library_is_looked_for_where_it_was_built(bare: Bare) -> None:
    """No program or library has a search path but its own place: whoever owns such a directory on a host would own the service."""
    paths = [
        f"{path.name}: {found}"
        for path in programs(bare.root / "usr/libexec/wok-exporter")
        for found in re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.+)\]", output("readelf", "--dynamic", path))
        if not all(place.startswith("$ORIGIN") for place in found.split(":"))
    ]

    assert paths == []


def test_every_bundled_distribution_is_in_the_copyright_page(bare: Bare) -> None:
    """The copyright page has the Python interpreter, every Python package and every library that is carried."""
    page = (bare.root / "usr/share/doc/wok-exporter/copyright").read_text("utf-8")
    owners = "\n".join(re.findall(r"^={80}\n(.+)\n={80}$", page, re.MULTILINE))
    carried = [
        path.name.removesuffix(".dist-info") for path in bare.root.glob("usr/libexec/*/lib/*.dist-info")
    ]
    libraries = [
        path.name for path in bare.root.glob("usr/libexec/*/lib/lib*.so*") if "python" not in path.name
    ]

    assert len(carried) > 10
    assert [name for name in carried if re.sub("[-_]", " ", name) not in re.sub("[-_]", " ", owners)] == []
    assert [name for name in libraries if name not in owners] == []
    assert f"wok-exporter {__version__}" in owners
    assert "Python 3." in owners


def test_lintian_finds_what_is_meant_alone(packages: Packages) -> None:
    """Debian's checker finds nothing but what the package does on purpose."""
    if shutil.which("lintian") is None:
        pytest.skip("lintian is not installed: apt install lintian")
    told = subprocess.run(
        ["lintian", "--allow-root", "--fail-on", "none", packages.deb],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )

    found = set(re.findall(r"^[EW]: wok-exporter: (\S+)", told.stdout, re.MULTILINE))
    assert found - LINTIAN_TAGS == set()


@pytest.fixture(name="logs", scope="module")
def _logs(bare: Bare) -> list[str]:
    """Logs in the bare root, by their paths there: the corpus, and the story in two dialects, one of them compressed."""
    (bare.root / "logs").mkdir()
    begin = datetime(2026, 11, 25, 9, 0, 0, tzinfo=UTC)
    texts = {f"{log.parent.name}-{log.name}": log.read_bytes() for log in LOGS}
    for dialect in ("rfc", "json"):
        lines = (line.data + b"\n" for line in story(dialect, start=begin) if line.log == "requests")
        texts[f"story-{dialect}"] = b"".join(lines)
    texts["story-json.gz"] = gzip.compress(texts["story-json"])
    for name, text in texts.items():
        (bare.root / "logs" / name).write_bytes(text)
    return [f"/logs/{name}" for name in sorted(texts)]


def test_it_understands_what_the_checkout_does(bare: Bare, logs: list[str]) -> None:
    """On a host without Python, `check` finds the same in every log as the checkout does."""
    for log in logs:
        arguments = ("--json", "--timezone", "America/Sao_Paulo", "--wok-error-log", "off")
        theirs = bare.run("check", log, *arguments, env=environ())
        ours = run("check", f"{bare.root}{log}", *arguments)

        assert theirs.returncode == ours.returncode == 0, theirs.stderr
        assert theirs.stdout.replace(log, "LOG") == ours.stdout.replace(f"{bare.root}{log}", "LOG")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_it_sends_what_the_checkout_sends(
    bare: Bare, logs: list[str], protocol: Literal["http", "grpc"]
) -> None:
    """On a host without Python, `replay` sends the same bytes of every log as the checkout does, and so its second process works."""
    for log in logs:
        arrived = []
        for root, program in (("", bare.run), (str(bare.root), run)):
            with Sink(protocol) as sink:
                done = program("replay", f"{root}{log}", *SAME, env=environ(**sink.environ()))
                assert done.returncode == 0, done.stderr
                arrived.append(
                    (sorted(map(repr, sink.spans().items())), sorted(map(repr, sink.logs().items())))
                )

        assert arrived[0] == arrived[1]
        assert arrived[0][1]


def test_it_reads_logs_packed_with_zstd(bare: Bare, logs: list[str]) -> None:
    """Whoever installs a package cannot add a Python package to it: what unpacks .zst is carried."""
    assert "/logs/story-json" in logs
    packed = bare.root / "logs" / "packed.zst"
    zstandard = pytest.importorskip(
        "zstandard", reason="zstandard is not installed: uv sync --group packages"
    )
    packed.write_bytes(zstandard.compress((bare.root / "logs" / "story-json").read_bytes()))

    def counts(log: str) -> str:
        done = bare.run("check", log, "--json", "--timezone", "UTC", "--wok-error-log", "off", env=environ())
        assert done.returncode == 0, done.stderr
        return done.stdout.replace(log, "LOG")

    assert (
        json.loads(counts("/logs/packed.zst"))["lines"] == json.loads(counts("/logs/story-json"))["lines"] > 0
    )


def test_the_daemon_serves_metrics_and_the_page(bare: Bare, tmp_path: Path) -> None:
    """On a host without Python the daemon follows a log, counts it, and serves the page, whose files are carried."""
    log = bare.root / "logs" / "live"
    log.write_bytes(request_line(time.time(), "web01"))
    arguments = ["--log", "/logs/live", "--state", "/tmp/state", "--listen", "127.0.0.1:0", *SAME]
    arguments += ["--start-at", "beginning", "--wok-error-log", "off"]
    with bare.running("run", *arguments, said=tmp_path / "said") as daemon:
        daemon.wait_for("backlog read")
        wait_until(lambda: "wok_requests_total{" in daemon.get("/metrics")[1])

        assert daemon.get("/healthz")[0] == 200
        assert "<title>" in daemon.get("/")[1]
        assert daemon.stop() == 0
