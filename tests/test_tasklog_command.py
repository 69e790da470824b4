"""`wok-exporter tasklog` on the files of a host with an installed Wok: what it installs, says, removes and refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.cli import main
from exporter.wok.tasklog import METHODS, Seen, is_enabled, is_ours, seen_in

PLUGIN = Path(__file__).parents[1] / "deploy" / "wok" / "tasklog"
LIBRARY = "usr/lib/python3/dist-packages"
LINK = f"{LIBRARY}/wok/plugins/tasklog"
CONF = "etc/wok/plugins.d/tasklog.conf"
LOG = "var/log/wok/wok-error.log"
SHARED = "usr/share/wok-exporter/tasklog"
WORKS = "tasklog: starts and ends of tasks are logged with their ids\n"
STARTED = "[28/Nov/2026:02:36:10] ENGINE Bus STARTED\n"
EXITED = "[28/Nov/2026:03:00:00] ENGINE Bus EXITED\n"


class Host:
    """The files of a host, below a directory of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("usr/bin/wokd", f"#!/usr/bin/env python3\nimport sys\nsys.path.insert(1, '/{LIBRARY}')\n")
        for name, methods in METHODS.items():
            self.write(
                f"{LIBRARY}/wok/{name}", "".join(f"    def {method}:\n        pass\n" for method in methods)
            )
        self.write(f"{LIBRARY}/wok/config.py", '__version__ = "3.0.0"\n')
        (root / LIBRARY / "wok/plugins").mkdir()
        (root / "etc/wok/plugins.d").mkdir(parents=True)
        for path in PLUGIN.iterdir():
            if path.is_file():
                self.write(f"{SHARED}/{path.name}", path.read_text("utf-8"))

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)

    def files(self) -> dict[str, str]:
        """Return every file and link with what is in it."""
        return {
            str(path.relative_to(self.root)): str(path.readlink())
            if path.is_symlink()
            else path.read_text("utf-8")
            for path in self._walk()
        }

    def _walk(self) -> Iterator[Path]:
        for folder, _, names in os.walk(self.root):
            yield from (Path(folder) / name for name in names)
        link = self.root / LINK
        if link.is_symlink():
            yield link

    def run(self, action: str, *options: str) -> int:
        return main(["tasklog", action, "--root", str(self.root), *options], environ={})


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "root")


def test_install_links_and_configures(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """A first installation makes the link and the configuration, changes nothing else, and says that wokd must be restarted."""
    before = host.files()

    assert host.run("install") == 0
    made = {LINK: f"/{SHARED}", CONF: (PLUGIN / "tasklog.conf").read_text("utf-8")}
    assert host.files() == before | made
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"Linked /{LINK} to /{SHARED}.",
        f"Created /{CONF}.",
        "Restart wokd to make this take effect (systemctl restart wokd). Tasks that are running then are lost: choose the moment.",
    ]
    assert err == ""


def test_install_twice_is_install_once(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """A second installation changes nothing and says so."""
    host.run("install")
    before = host.files()
    capsys.readouterr()

    assert host.run("install") == 0
    assert host.files() == before
    assert "already" in capsys.readouterr().out


def test_remove_takes_back_what_install_has_made(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """After removal every file is as before the installation; a second removal finds nothing, which is no error."""
    before = host.files()
    host.run("install")

    assert host.run("remove") == 0
    assert host.files() == before
    assert "Restart wokd" in capsys.readouterr().out
    assert host.run("remove") == 0
    assert capsys.readouterr().out == "The plug-in is not installed: nothing to remove.\n"


def test_a_configuration_that_wok_has_switched_is_kept_and_told(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plug-in that was disabled in Wok's settings is linked, but never enabled behind the administrator's back."""
    host.write(CONF, '[wok]\nenable = False\nuri = "/plugins/tasklog"\n')

    assert host.run("install") == 1
    assert "enable = False" in host.files()[CONF]
    assert "disables the plug-in. Set enable = True" in capsys.readouterr().out
    assert host.run("remove") == 0
    assert CONF not in host.files()


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("folder", "is not a link: another program or person has put it there"),
        ("file", "is not a link: another program or person has put it there"),
        ("other link", "is a link to /opt/other, not to /usr/share/wok-exporter/tasklog"),
        ("configuration", "is not the configuration of this plug-in"),
    ],
)
@pytest.mark.parametrize("action", ["install", "remove"])
def test_foreign_files_are_never_touched(
    host: Host, capsys: pytest.CaptureFixture[str], what: str, expected: str, action: str
) -> None:
    """Something else in the place of the link or of the configuration is refused, named, and left as it is."""
    if what == "folder":
        host.write(f"{LINK}/__init__.py", "# mine\n")
    elif what == "file":
        host.write(LINK, "mine\n")
    elif what == "other link":
        (host.root / LINK).symlink_to("/opt/other")
    else:
        host.write(CONF, "[wok]\nenable = True\nuri = '/plugins/other'\nmore = 1\n")
    before = host.files()

    assert host.run(action) == 2
    assert host.files() == before
    err = capsys.readouterr().err
    assert expected in err
    assert err.startswith("error: /")


def test_a_host_without_wok_is_refused(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a wokd the error names the places that were looked at and the flag that helps."""
    (host.root / "usr/bin/wokd").unlink()

    assert host.run("install") == 2
    err = capsys.readouterr().err
    assert err == (
        "error: cannot find Wok: there is no /usr/bin/wokd, /usr/local/bin/wokd, /usr/sbin/wokd."
        " Name its program with --wokd PATH.\n"
    )


@pytest.mark.parametrize("action", ["install", "status", "remove"])
def test_a_program_that_is_no_wokd_is_refused(
    host: Host, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    """A wokd from a source tree, or another program, has no line that says where Wok is."""
    host.write("usr/bin/wokd", "#!/bin/sh\nsys.path.insert(1, '@pythondir@')\n")

    assert host.run(action) == 2
    assert "/usr/bin/wokd is not the wokd of a known Wok" in capsys.readouterr().err


def test_another_wok_is_found_where_its_program_says(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """--wokd names the program; its own line, and the configuration's directory of that Wok, are followed."""
    (host.root / LIBRARY).rename(host.root / "opt")
    (host.root / "usr/bin/wokd").rename(host.root / "opt/wokd")
    host.write("opt/wokd", 'import sys\nsys.path.insert(1, "/opt")\n')
    host.write("opt/wok/config.py", "        self.conf_dir = '/usr/local/etc/wok/plugins.d'\n")

    assert host.run("install", "--wokd", "/opt/wokd") == 0
    files = host.files()
    assert "usr/local/etc/wok/plugins.d/tasklog.conf" in files
    assert (host.root / "opt/wok/plugins/tasklog").readlink() == Path(f"/{SHARED}")
    assert "/opt/wok/plugins/tasklog" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_wok_that_the_plugin_does_not_know_is_refused(
    host: Host, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Where one of the methods that the plug-in wraps has other arguments, nothing is installed."""
    text = host.files()[f"{LIBRARY}/wok/{name}"]
    host.write(f"{LIBRARY}/wok/{name}", text.replace("(self, ", "(self, more, "))
    before = host.files()

    assert host.run("install") == 2
    assert host.files() == before
    assert f"this Wok is not known: /{LIBRARY}/wok/{name} has no method " in capsys.readouterr().err
    assert host.run("status") == 1


def test_the_layout_of_the_source_does_not_matter(host: Host) -> None:
    """The same methods over several lines are known all the same."""
    text = host.files()[f"{LIBRARY}/wok/asynctask.py"]
    host.write(
        f"{LIBRARY}/wok/asynctask.py",
        text.replace("(self, target_uri", "(\n        self,\n        target_uri"),
    )

    assert host.run("install") == 0


def test_an_installation_that_fails_halfway_can_be_repeated(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the configuration cannot be created, the error names it and the reason; the next run does what is left."""
    (host.root / "etc/wok/plugins.d").rmdir()
    host.write("etc/wok/plugins.d", "a file where Wok has a directory\n")

    assert host.run("install") == 2
    assert f"error: cannot create /{CONF}: " in capsys.readouterr().err
    assert LINK in host.files()
    (host.root / "etc/wok/plugins.d").unlink()
    assert host.run("install") == 0
    assert CONF in host.files()


def test_a_missing_plugin_is_refused(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the plug-in's folder nothing is linked, and the error says where it comes from."""
    (host.root / SHARED / "records.py").unlink()

    assert host.run("install") == 2
    assert (
        f"cannot read the plug-in's /{SHARED}/records.py: No such file or directory."
        in capsys.readouterr().err
    )
    assert LINK not in host.files()


def test_a_plugin_that_everybody_can_change_is_refused(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wokd runs as root, so it must not be made to load what anybody may write."""
    (host.root / SHARED / "records.py").chmod(0o666)

    assert host.run("install") == 2
    assert f"everybody can change /{SHARED}/records.py" in capsys.readouterr().err


def test_another_folder_can_be_named(host: Host) -> None:
    """--source links another folder; then status and remove need the same."""
    (host.root / SHARED).rename(host.root / "srv-tasklog")

    assert host.run("install", "--source", "/srv-tasklog") == 0
    assert host.files()[LINK] == "/srv-tasklog"
    assert host.run("remove") == 2
    assert host.run("remove", "--source", "/srv-tasklog") == 0


def test_a_dangling_link_of_ours_is_told_and_removed(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """After the package of wok-exporter is removed, status says that the link leads nowhere, and remove removes it."""
    host.run("install")
    (host.root / SHARED).rename(host.root / "gone")

    assert host.run("status") == 1
    assert "which is not usable" in capsys.readouterr().out
    assert host.run("remove") == 0
    assert LINK not in host.files()


@pytest.mark.parametrize(
    ("log", "expected", "code"),
    [
        (None, "unknown: cannot read /var/log/wok/wok-error.log: No such file or directory", 1),
        (STARTED, "no: /var/log/wok/wok-error.log has no line of the plug-in. Has wokd been restarted?", 1),
        (
            WORKS + STARTED,
            "yes, since wokd was started at 28/Nov/2026:02:36:10 (/var/log/wok/wok-error.log)",
            0,
        ),
        (STARTED + WORKS, "yes (/var/log/wok/wok-error.log)", 0),
        (WORKS + STARTED + EXITED, "no: wokd has stopped", 1),
        (WORKS + STARTED + EXITED + STARTED, "no: wokd has been started again since, without the plug-in", 1),
        (WORKS + STARTED + STARTED, "no: wokd has been started again since, without the plug-in", 1),
        (WORKS + STARTED + EXITED + WORKS + STARTED, "yes, since wokd was started at", 0),
        ("tasklog: this Wok is not known (x): ...\n" + STARTED, "no: this Wok is not known (x)", 1),
        ("x" * 200_000 + "\n" + WORKS + STARTED, "yes", 0),
        ("name tasklog: x\n" + STARTED, "no: /var/log/wok/wok-error.log has no line", 1),
    ],
)
def test_status_says_whether_it_is_at_work(
    host: Host, capsys: pytest.CaptureFixture[str], log: str | None, expected: str, code: int
) -> None:
    """The last line of the plug-in in wok-error.log counts, unless wokd has been stopped or started again after it."""
    host.run("install")
    if log is not None:
        host.write(LOG, log)
    capsys.readouterr()

    assert host.run("status") == code
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"Wok         3.0.0 in /{LIBRARY}/wok (from /usr/bin/wokd)"
    assert out[1] == f"linked      yes: /{LINK} -> /{SHARED}"
    assert out[2] == f"configured  yes: /{CONF}"
    assert out[3].startswith(f"at work     {expected}")


def test_status_of_a_host_without_the_plugin(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """Before an installation, and after an upgrade that has moved Wok's directory, status says what to do."""
    host.write(LOG, WORKS + STARTED)

    assert host.run("status") == 1
    out = capsys.readouterr().out.splitlines()
    assert out[1] == f"linked      no: there is no /{LINK}"
    assert out[2] == f"configured  no: there is no /{CONF}"
    assert out[-1] == "to do       wok-exporter tasklog install"


def test_status_tells_of_records_that_failed(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """What the plug-in could not log is a problem even while it is at work."""
    host.run("install")
    host.write(
        LOG,
        WORKS + STARTED + "tasklog: could not log the end of a task (KeyError); Wok and its tasks go on\n",
    )
    capsys.readouterr()

    assert host.run("status") == 1
    assert "1 kinds of record could not be logged" in capsys.readouterr().out


def test_the_log_is_read_where_wok_writes_it(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """log_dir of wok.conf, and else that of the installed Wok, says where wok-error.log is."""
    host.run("install")
    host.write(f"{LIBRARY}/wok/config.py", "        self.log_dir = '/srv/log/wok'\n")
    host.write("srv/log/wok/wok-error.log", WORKS)
    assert host.run("status") == 0
    host.write("etc/wok/wok.conf", "[logging]\nlog_dir = /srv/elsewhere\n")
    assert host.run("status") == 1
    host.write("srv/elsewhere/wok-error.log", WORKS)
    assert host.run("status") == 0
    assert "/srv/elsewhere/wok-error.log" in capsys.readouterr().out


def test_json_for_programs(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """--json says the same as one object."""
    assert host.run("install", "--json") == 0
    answer = json.loads(capsys.readouterr().out)

    assert answer["ok"] is True
    assert answer["done"] == [f"link /{LINK}", f"create /{CONF}"]
    assert (answer["wok"], answer["plugin"], answer["configuration"]) == ("3.0.0", f"/{LINK}", f"/{CONF}")


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    """The help of the command names its actions and that wokd is never restarted; an unknown action is exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main(["tasklog", "--help"], environ={})
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("install", "status", "remove", "--wokd", "--root", "restarts wokd"))
    with pytest.raises(SystemExit) as refused:
        main(["tasklog", "enable"], environ={})
    assert refused.value.code == 2


@pytest.mark.parametrize(
    ("conf", "ours", "enabled"),
    [
        ((PLUGIN / "tasklog.conf").read_text("utf-8"), True, True),
        ('[wok]\nenable = False\nuri = "/plugins/tasklog"\n', True, False),
        ("[wok]\nenable = True\n", False, True),
        ('[wok]\nenable = True\nuri = "/plugins/tasklog"\n[more]\na = 1\n', False, False),
        ("", False, False),
        ("[wok", False, False),
    ],
)
def test_a_configuration_is_known_by_what_it_holds(conf: str, ours: bool, enabled: bool) -> None:
    """Ours is exactly what install creates, in any state that Wok's settings switch it to."""
    assert (is_ours(conf), is_enabled(conf)) == (ours, enabled)


def test_an_empty_log_says_nothing() -> None:
    """No lines, no sentence, no start."""
    assert seen_in([]) == Seen()


@pytest.mark.parametrize("name", sorted(path.name for path in PLUGIN.iterdir() if path.is_file()))
@pytest.mark.parametrize("is_missing", [True, False])
def test_every_file_of_the_plugin_is_checked(host: Host, name: str, is_missing: bool) -> None:
    """A plug-in is rejected if any of its files is missing or can be changed by everybody: wokd runs them as root."""
    path = host.root / SHARED / name
    if is_missing:
        path.unlink()
    else:
        path.chmod(0o666)

    assert host.run("install") == 2
    assert not (host.root / LINK).is_symlink()


@pytest.mark.parametrize("name", [LOG, CONF])
def test_a_fifo_is_never_waited_for(host: Host, name: str) -> None:
    """A FIFO in the place of a file is reported; nobody has to write into it."""
    (host.root / name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(host.root / name)

    assert host.run("status") in (1, 2)


def test_a_log_directory_with_a_nul_is_reported(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """A NUL in Wok's log_dir is a log that cannot be read, not an internal error."""
    host.write("etc/wok/wok.conf", "[logging]\nlog_dir = /a\0b\n")

    assert host.run("status") == 1
    assert "cannot read" in capsys.readouterr().out
