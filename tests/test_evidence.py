"""The rules that join a request to a target_uri."""

from __future__ import annotations

import time
from typing import Any

import pytest

from exporter.correlate.evidence import general_forms, general_targets, segments_of_target, values_of
from exporter.wok.operations import Form, Operations, Target

NAMING = Operations.load()

CLONE = "/plugins/kimchi/vms/web-clone-1470994166305743/clone"

# (application, code, parameters, a target_uri of its task, whether it names the task)
JOINED: list[tuple[str, str, dict[str, Any], str, bool]] = [
    ("kimchi", "KCHVM0001L", {"name": "a >>> b", "template": "/t/x"}, "/plugins/kimchi/vms/a >>> b", True),
    ("kimchi", "KCHVM0001L", {"name": "", "template": "/t/x"}, "/plugins/kimchi/vms/x-vm-3", False),
    ("kimchi", "KCHVM0001L", {"name": 12345}, "/plugins/kimchi/vms/12345", True),
    ("kimchi", "KCHVM0009L", {"ident": "web"}, CLONE, True),
    ("kimchi", "KCHVM0010L", {"ident": "web", "remote_host": "h"}, "/plugins/kimchi/vms/web/migrate", True),
    ("kimchi", "KCHSNAP0001L", {"vm": "a/b", "name": "s"}, "/plugins/kimchi/vms/a/b/snapshots/s", True),
    ("kimchi", "KCHSNAP0001L", {"vm": "a", "name": ""}, "/plugins/kimchi/vms/a/snapshots/1470994166", True),
    ("kimchi", "KCHVMHDEV0001L", {"vmid": "a", "name": "pci"}, "/plugins/kimchi/vms/a/hostdevs/", False),
    ("kimchi", "KCHVMHDEV0001L", {"vmid": "é"}, "/plugins/kimchi/vms/w6k=/hostdevs/", False),
    ("kimchi", "KCHVMHDEV0002L", {"vmid": "a", "ident": "pci"}, "/plugins/kimchi/vms/a/hostdevs/pci", True),
    (
        "kimchi",
        "KCHPOOL0001L",
        {"name": "x", "type": "dir"},
        "/plugins/kimchi/storagepools/kimchi_isos",
        False,
    ),
    (
        "kimchi",
        "KCHVOL0001L",
        {"pool": "p", "name": "v"},
        "/plugins/kimchi/storagepools/p/storagevolumes/v",
        True,
    ),
    (
        "kimchi",
        "KCHVOL0001L",
        {"pool": "p", "name": "", "url": "http://h/d/x.iso?k=1", "pool_type": "dir"},
        "/plugins/kimchi/storagepools/p/storagevolumes/x.iso",
        True,
    ),
    (
        "kimchi",
        "KCHVOL0006L",
        {"pool": "p", "ident": "v.img"},
        "/plugins/kimchi/storagepools/p/storagevolumes/v-clone-2.img/clone",
        True,
    ),
    (
        "kimchi",
        "KCHVOL0006L",
        {"pool": "p", "ident": "v"},
        "/plugins/kimchi/storagepools/p/storagevolumes/v-clone-1/clone",
        True,
    ),
    (
        "ginger",
        "GINHBK0002L",
        {"description": "x"},
        "/backup/create/69ae76e6-e6ec-41f1-a1fa-02fc00000001",
        False,
    ),
    ("ginger", "WOKRES0001L", {"ident": "b1"}, "/backup/restore/b1", True),
    ("ginger", "GINVG0001L", {"vg_name": "vg", "pv_paths": "[u'/dev/sdb']"}, "/vgs/vg_name/vg", True),
    ("ginger", "GINLV0001L", {"vg_name": "vg", "size": "1G"}, "/lvs/vg_name/vg", False),
    ("ginger", "GINPV0001L", {"pv_name": "/dev/sdb1"}, "/pvs/pv_name//dev/sdb1", True),
    ("ginger", "GINSP0001L", {"file_loc": "/swap"}, "/swaps/file_loc/", False),
    ("ginger", "GINPART0004L", {"ident": "sdb1", "fstype": "ext4"}, "/partitions/sdb1/fstypeext4", True),
    (
        "ginger",
        "GINDASD0001L",
        {"ident": "0.0.0200", "blk_size": "4096"},
        "/dasddevs/dasda/blksize/4096",
        False,
    ),
    ("ginger", "GINNET0007L", {"ident": "eth0"}, "/plugins/ginger/network/eth0/enable_sriov", True),
    ("ginger", "GINFW0001L", {"path": "/tmp/fw"}, "/plugins/ginger/firmware/upgrade", False),
    ("gingerbase", "GGBPKGUPD0001L", {"ident": ""}, "/plugins/gingerbase/host/swupdate", False),
    (
        "gingerbase",
        "GGBPKGUPD0002L",
        {"ident": "vim"},
        "/plugins/gingerbase/host/packagesupdate/vim/upgrade",
        True,
    ),
    ("gingerbase", "GGBDR0001L", {"name": " r "}, "/plugins/gingerbase/debugreports/r", True),
    ("gingerbase", "GGBDR0001L", {"name": ""}, "/plugins/gingerbase/debugreports/report-1470994166305", True),
    ("gingers390x", "GS390XSTG0003L", {"ident": ""}, "/plugins/gingers390/lunscan/trigger", False),
    (
        "gingers390x",
        "GS390XIONW0001L",
        {"ident": "0.0.1"},
        "/plugins/gingers390x/nwdevices/0.0.1/configure",
        True,
    ),
]


def of_request(app: str, code: str, params: dict[str, Any]) -> tuple[Form, ...]:
    """The forms of an accepted request."""
    method = "DELETE" if code == "KCHVMHDEV0002L" else "POST"
    return NAMING.forms(app, code, NAMING.of_request(app, method, code, params, 202), params)


def of_target(target_uri: str, app: str = "kimchi") -> list[Target]:
    """The forms of a task's target_uri."""
    return NAMING.targets(app, target_uri)


def is_unlogged(target_uri: str) -> bool:
    return any(NAMING.is_unlogged(app, target_uri) for app in NAMING.apps)


@pytest.mark.parametrize(("app", "code", "params", "target_uri", "named"), JOINED)
def test_request_and_target_meet(
    app: str, code: str, params: dict[str, Any], target_uri: str, named: bool
) -> None:
    """The forms of a request and of its task's target_uri have one in common, of the right strength."""
    targets = [target.text for target in of_target(target_uri, app)]
    met = [form for form in of_request(app, code, params) if form.text in targets]

    assert {form.named for form in met} == {named}


@pytest.mark.parametrize(
    ("app", "code", "params", "target_uri"),
    [
        # the ident `vm` is a prefix of `vm-clone-1`'s clones
        (
            "kimchi",
            "KCHVM0009L",
            {"ident": "vm"},
            "/plugins/kimchi/vms/vm-clone-1470994166305743-clone-1470994166305743/clone",
        ),
        ("kimchi", "KCHVM0009L", {"ident": "vm"}, "/plugins/kimchi/vms/vm2-clone-1470994166305743/clone"),
        ("kimchi", "KCHVM0001L", {"name": "web"}, "/plugins/kimchi/vms/web/migrate"),
        (
            "kimchi",
            "KCHVOL0006L",
            {"pool": "p", "ident": "v.img"},
            "/plugins/kimchi/storagepools/p/storagevolumes/v-clone-2.raw/clone",
        ),
        ("ginger", "GINDASD0001L", {"ident": "x", "blk_size": "512"}, "/dasddevs/dasda/blksize/4096"),
        ("kimchi", "GINSP0001L", {"file_loc": "/swap"}, "/swaps/file_loc/"),
        ("kimchi", "KCHVM0010L", {"ident": ""}, "/plugins/kimchi/vms//migrate"),
        ("kimchi", "KCHVM0010L", {"ident": ["web"]}, "/plugins/kimchi/vms/web/migrate"),
    ],
)
def test_strangers_do_not_meet(app: str, code: str, params: dict[str, Any], target_uri: str) -> None:
    """A target_uri that only looks like a request's does not share a form with it."""
    targets = [target.text for target in of_target(target_uri, app)]

    assert [form for form in of_request(app, code, params) if form.text in targets] == []


def test_epochs_are_read_in_their_unit() -> None:
    """The start time in a target_uri is nanoseconds, whatever Wok wrote it in."""
    assert [target.epoch for target in of_target(CLONE)] == [0, 1_470_994_166_305_743_000]
    assert of_target("/plugins/kimchi/vms/a/snapshots/1470994166")[1].epoch == 1_470_994_166 * 10**9
    assert (
        of_target("/plugins/gingerbase/debugreports/report-1470994166305", "gingerbase")[1].epoch
        == 1_470_994_166_305 * 10**6
    )


@pytest.mark.parametrize(
    ("pool_type", "named", "nests", "may_nest"),
    [
        ("dir", True, False, True),
        ("netfs", True, False, True),
        ("logical", True, True, False),
        ("iscsi", True, True, False),
        ("", False, False, False),
    ],
)
def test_a_download_may_nest(pool_type: str, named: bool, nests: bool, may_nest: bool) -> None:
    """Whether a nested task of the same target_uri reports first depends on the type of the pool."""
    params = {"pool": "p", "name": "v", "url": "http://h/v", "pool_type": pool_type}
    target = "/plugins/kimchi/storagepools/p/storagevolumes/v"

    assert of_request("kimchi", "KCHVOL0001L", params) == (
        Form(target, named=named, nests=nests, may_nest=may_nest),
    )


def test_a_value_that_looks_like_a_placeholder_stays_itself() -> None:
    """Names with braces and percent signs are never expanded."""
    forms = of_request("kimchi", "KCHSNAP0001L", {"vm": "{name}", "name": "%(vm)s{vm}"})

    assert forms == (Form("/plugins/kimchi/vms/{name}/snapshots/%(vm)s{vm}", named=True),)


def test_tasks_without_a_request() -> None:
    """Progress polls, deep scans and nested clones are known to have no request of their own."""
    nested = "/plugins/kimchi/storagepools/p/storagevolumes/69ae76e6-e6ec-41f1-a1fa-02fc00000001-0.img/clone"

    assert is_unlogged("/plugins/gingerbase/host/swupdateprogress")
    assert is_unlogged(nested)
    assert not is_unlogged("/plugins/kimchi/storagepools/p/storagevolumes/v-clone-1.img/clone")
    assert not is_unlogged(CLONE)


def test_general_evidence_is_plain_values_and_segments() -> None:
    """Where no rule serves, strings and numbers of the request may be segments of the target_uri."""
    assert values_of({"name": "web", "n": 12, "on": True, "l": ["x"], "s": "a"}) == ("web", "12")
    assert segments_of_target("/plugins/kimchi/jobs/a/b") == ("b", "a", "jobs", "jobs/a/b", "a/b")


def test_a_request_with_a_name_is_known_by_its_names_alone() -> None:
    """`full` is the mode of a request; only where it has no name its other values are evidence, and weak."""
    assert [form.text for form in general_forms({"ident": "web", "mode": "full"})] == ["~/web", "~web"]
    assert general_forms({"mode": "full-2026-11-28"}) == (
        Form("~/full-2026-11-28", named=False),
        Form("~full-2026-11-28", named=False),
    )
    assert general_forms({"pool_name": "guest-7f3a91c2"})[0] == Form("~/guest-7f3a91c2", named=True)


def test_general_targets_only_where_an_unknown_operation_may_be() -> None:
    """A target_uri that ends in a name may be another operation's; one that ends in `/migrate` is not."""
    assert "~web" in general_targets(NAMING, "kimchi", "/plugins/kimchi/vms/web/freeze")
    assert general_targets(NAMING, "kimchi", "/plugins/kimchi/vms/web/migrate") == ()
    assert general_targets(NAMING, "acme", "/plugins/acme/vms/web/migrate")[:2] == ("~/migrate", "~migrate")


def test_patterns_take_linear_time() -> None:
    """A target_uri made to be slow is answered at once: doubling it does not square the time."""
    hostile = "/plugins/kimchi/vms/" + "-clone-1" * 20_000 + "/clone"
    began = time.process_time()
    of_target(hostile)
    is_unlogged(hostile)

    assert time.process_time() - began < 2
