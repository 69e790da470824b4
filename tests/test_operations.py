"""The names of what requests and tasks do."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.wok.operations import Operations, Row, TaskShape

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"
TASK_ID = "69ae76e6-e6ec-11f1-a1fa-02fc00000001"
NAMES = st.one_of(
    st.text(min_size=1, max_size=20),
    st.sampled_from(["a/b", "x >>> y", "two\nlines", "-clone-1", "vm-clone-1", "..", "a.b.c", "ção", "%2F"]),
)

OPERATIONS = Operations.load()


def of_code(
    code: str, app: str = "kimchi", method: str = "POST", status: int | None = 200, **params: Any
) -> str:
    return OPERATIONS.of_request(app, method, code, params, status)


def test_applications() -> None:
    """The table knows Wok and its four plug-ins."""
    assert OPERATIONS.apps == ("kimchi", "ginger", "gingerbase", "gingers390x", "wok")


def test_tasks() -> None:
    """Every operation that starts tasks is told, by application; Wok itself has none."""
    expected = {
        "kimchi": (
            "storagepools.deep_scan",
            "storagevolumes.clone",
            "storagevolumes.create",
            "vms.clone",
            "vms.create",
            "vms.hostdevs.attach",
            "vms.hostdevs.detach",
            "vms.migrate",
            "vms.snapshots.create",
        ),
        "ginger": (
            "backup.create",
            "backup.restore",
            "dasddevs.format",
            "firmware.upgrade",
            "interfaces.enable_sriov",
            "lvs.create",
            "partitions.format",
            "pvs.create",
            "swaps.create",
            "vgs.create",
        ),
        "gingerbase": (
            "debugreports.create",
            "host.swupdate",
            "host.swupdateprogress",
            "packagesupdate.upgrade",
        ),
        "gingers390x": (
            "cio_ignore.remove",
            "lunscan.trigger",
            "nwdevices.configure",
            "nwdevices.unconfigure",
        ),
        "wok": (),
        "unheard-of": (),
    }

    assert expected == {app: OPERATIONS.tasks(app) for app in expected}


def shapes() -> list[tuple[str, TaskShape]]:
    """Every form of target_uri that the table knows, with its application."""
    return [(app, shape) for app in OPERATIONS.apps if app != "wok" for shape in OPERATIONS.shapes(app)]


SAMPLES = {"us": "1795404140195549", "ms": "1795404140195", "s": "1795404140", "uuid": TASK_ID}


def target_of(shape: TaskShape, name: str = "x1") -> str:
    """A target_uri of this form, in which everything that may be called anything is called `name`."""
    text = re.sub(r"\{[a-z_]+:extension\}|<extension>", ".img", shape.template.source)
    text = re.sub(r"\{[^}]*\}", name, text)
    return re.sub(r"<([a-z]+)>", lambda mark: SAMPLES.get(mark[1], "7"), text)


@pytest.mark.parametrize(("app", "shape"), shapes())
def test_all_tasks_can_be_told_by_their_target(app: str, shape: TaskShape) -> None:
    """A target_uri of every form in the table names its operation, and no other form of the table claims it."""
    assert OPERATIONS.of_target(app, target_of(shape)) == shape.operation


def test_resources() -> None:
    """What a request works on is said in words, with the names that the request has."""
    params = {"ident": "web", "vmid": "web", "name": "pci_1"}

    assert OPERATIONS.resource("kimchi", "vms.clone", params) == "guest web"
    assert OPERATIONS.resource("kimchi", "vms.hostdevs.attach", params) == "device pci_1 of guest web"
    assert OPERATIONS.resource("kimchi", "vms.snapshots.create", {"vm": "web"}) == "snapshot of guest web"
    assert OPERATIONS.resource("kimchi", "login", params) == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("kimchi\tPOST\tX0001L\tx.y\t\t/x/{name:upper}\tnamed\t", "upper"),
        ("kimchi\tPOST\tX0001L\tx.y\t\t/x/{name}\tcertain\t", "certain"),
    ],
)
def test_a_damaged_table_is_refused(line: str, message: str) -> None:
    """A template that asks for what nobody knows, or a word that means nothing, is an error at the start."""
    with pytest.raises(ValueError, match=message):
        Operations([Row(*line.split("\t"))])


@pytest.mark.parametrize(
    ("method", "code", "expected"),
    [
        ("POST", "KCHVM0001L", "vms.create"),
        ("PUT", "KCHVM0003L", "vms.update"),
        ("POST", "KCHVM0004L", "vms.start"),
        ("DELETE", "KCHVM0002L", "vms.delete"),
        ("POST", "KCHVM0009L", "vms.clone"),
        ("DELETE", "KCHVMHDEV0002L", "vms.hostdevs.detach"),
        ("POST", "KCHPOOL0004L", "storagepools.activate"),
        ("PUT", "KCHVOL0003L", "storagevolumes.update"),
        ("POST", "KCHTMPL0001L", "templates.create"),
        ("POST", "GINHBK0002L", "backup.create"),
        ("POST", "GINISCSIATH004L", "iscsi_auth.discovery_target_auth"),
        ("PUT", "GINNET0004L", "interfaces.update"),
        ("POST", "GINUSER0001L", "users.create"),
        ("POST", "GINSE0004L,", "servers.poweroff"),
        ("DELETE", "GINAUD0002L", "audit.rules.delete"),
        ("POST", "GINAUD0002L", "audit.conf.audisp_enable"),
        ("POST", "GINSMT0001L", "smt.enable"),
        ("POST", "GS390XIOST0002L", "storagedevices.offline"),
        ("POST", "WOKROOT0001L", "login"),
        ("POST", "WOKROOT0002L", "logout"),
        ("POST", "WOKCOL0001L", "collection.create"),
        ("PUT", "WOKRES0001L", "resource.update"),
    ],
)
def test_known_codes(method: str, code: str, expected: str) -> None:
    """A code and a method name an operation, whatever plug-in has served it."""
    actual = {OPERATIONS.of_request(app, method, code, {}, 200) for app in ("kimchi", "wok", "sample")}

    assert {expected} == actual


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", ""),
        ("KCHVM0099L", "KCHVM0099L"),
        ("kchvm0001l", "other"),
        ("A1", "other"),
        ("A" * 42, "other"),
        ("KCHVM0001L\n", "other"),
        ("KCHVM\u0660L", "other"),
        ("<b>", "other"),
    ],
)
def test_unknown_codes(code: str, expected: str) -> None:
    """A code without a name stays itself, what is no code is `other`, and a record without one has none."""
    assert expected == of_code(code)


def test_known_code_of_another_method() -> None:
    """A code that the table has for another method only is not given that method's name."""
    assert of_code("KCHVM0002L", method="PUT") == "KCHVM0002L"


def test_deep_scan() -> None:
    """Creating a storage pool is a deep scan if it has started a task or says so, and else it is not."""
    assert of_code("KCHPOOL0001L", status=201, type="dir") == "storagepools.create"
    assert of_code("KCHPOOL0001L", status=None) == "storagepools.create"
    assert of_code("KCHPOOL0001L", status=202, type="dir") == "storagepools.deep_scan"
    assert of_code("KCHPOOL0001L", status=400, type="kimchi-iso") == "storagepools.deep_scan"


def test_code_that_changed_its_meaning() -> None:
    """The code that Ginger has used for two things is told by its parameters."""
    assert of_code("GINAUD0001L", "ginger", auditrule_file="/etc/x") == "audit.load_rules"
    assert of_code("GINAUD0001L", "ginger", rule="", type="") == "audit.rules.create"


@pytest.mark.parametrize(
    ("app", "ident", "status", "expected"),
    [
        ("wok", TASK_ID, 204, "tasks.kill"),
        ("kimchi", TASK_ID, 400, "tasks.kill"),
        ("wok", "17", 405, "tasks.kill"),
        ("wok", 17, 405, "tasks.kill"),
        ("kimchi", "17", 405, "resource.delete"),
        ("wok", 10**9, 405, "resource.delete"),
        ("wok", "1" * 20, 405, "resource.delete"),
        ("wok", True, 405, "resource.delete"),
        ("wok", None, 405, "resource.delete"),
        ("wok", [TASK_ID], 405, "resource.delete"),
        ("wok", "x" * 36, 404, "resource.delete"),
        ("wok", "KCHLIBV0001E", 204, "notifications.delete"),
        ("kimchi", "KCHLIBV0001E", 405, "resource.delete"),
    ],
)
def test_generic_delete(app: str, ident: Any, status: int, expected: str) -> None:
    """The generic code hides the killing of tasks and the dismissal of notifications, told by the id."""
    assert expected == of_code("WOKRES0001L", app, "DELETE", status, ident=ident)


def test_endless_id() -> None:
    """A number of more digits than Python will print is no task's id, and no error."""
    assert of_code("WOKRES0001L", "wok", "DELETE", 405, ident=10**5000) == "resource.delete"


@pytest.mark.parametrize(
    ("app", "params", "status", "expected"),
    [
        ("ginger", {"ident": TASK_ID}, 202, "backup.restore"),
        ("ginger", {"ident": TASK_ID}, 500, "backup.restore"),
        ("ginger", {"ident": "eth0"}, 202, "backup.restore"),
        ("ginger", {"ident": "eth0"}, 200, "resource.action"),
        ("ginger", {"ident": "eth0", "num_vfs": "4"}, 202, "interfaces.enable_sriov"),
        ("kimchi", {"ident": TASK_ID}, 202, "resource.action"),
        ("wok", {}, None, "resource.action"),
    ],
)
def test_generic_post(app: str, params: dict[str, Any], status: int | None, expected: str) -> None:
    """The generic code of an action is Ginger's restoring of a backup when the status or the id says so."""
    assert expected == OPERATIONS.of_request(app, "POST", "WOKRES0001L", params, status)


@pytest.mark.parametrize(
    ("app", "target_uri", "expected"),
    [
        ("kimchi", "/plugins/kimchi/vms/web", "vms.create"),
        ("kimchi", "/plugins/kimchi/vms/clone", "vms.create"),
        ("kimchi", "/plugins/kimchi/vms/web-clone-1", "vms.create"),
        ("kimchi", "/plugins/kimchi/vms/a >>> b\n/c", "vms.create"),
        ("kimchi", "/plugins/kimchi/vms/", "other"),
        ("kimchi", "/plugins/kimchi/vms/web-clone-1795404140195549/clone", "vms.clone"),
        ("kimchi", "/plugins/kimchi/vms/a/b\n-clone-1795404140195549/clone", "vms.clone"),
        ("kimchi", "/plugins/kimchi/vms/web/migrate", "vms.migrate"),
        ("kimchi", "/plugins/kimchi/vms/migrate", "vms.create"),
        ("kimchi", "/plugins/kimchi/vms/web/hostdevs/", "vms.hostdevs.attach"),
        ("kimchi", "/plugins/kimchi/vms/web/hostdevs/pci_0000_01_00_0", "vms.hostdevs.detach"),
        ("kimchi", "/plugins/kimchi/vms/web/snapshots/1795404140", "vms.snapshots.create"),
        ("kimchi", "/plugins/kimchi/vms/snapshots/x", "vms.create"),
        ("kimchi", "/plugins/kimchi/storagepools/kimchi_isos", "storagepools.deep_scan"),
        ("kimchi", "/plugins/kimchi/storagepools/p/storagevolumes/disk.img", "storagevolumes.create"),
        (
            "kimchi",
            "/plugins/kimchi/storagepools/p/storagevolumes/disk-clone-2.img/clone",
            "storagevolumes.clone",
        ),
        (
            "kimchi",
            "/plugins/kimchi/storagepools/p/storagevolumes/disk-clone-12/clone",
            "storagevolumes.clone",
        ),
        (
            "kimchi",
            "/plugins/kimchi/storagepools/p/storagevolumes/36e16d46-a3ec-4b2c-8a0e-1c9f1ad30b0f-0.qcow2/clone",
            "storagevolumes.clone",
        ),
        (
            "kimchi",
            "/plugins/kimchi/storagepools/p/storagevolumes/disk-clone-1795404053025504.x/clone",
            "storagevolumes.clone",
        ),
        ("kimchi", "/plugins/kimchi/storagepools/p/storagevolumes/mine/clone", "storagevolumes.create"),
        ("kimchi", "/plugins/kimchi/storagepools/p", "other"),
        ("kimchi", "/plugins/kimchi/slowjobs/x", "other"),
        ("kimchi", "", "other"),
        ("ginger", f"/backup/create/{TASK_ID}", "backup.create"),
        ("ginger", f"/backup/restore/{TASK_ID}", "backup.restore"),
        ("ginger", "/vgs/vg_name/vg0", "vgs.create"),
        ("ginger", "/lvs/vg_name/vg0", "lvs.create"),
        ("ginger", "/pvs/pv_name//dev/sdb1", "pvs.create"),
        ("ginger", "/swaps/file_loc/", "swaps.create"),
        ("ginger", "/partitions/sdb1/fstypeext4", "partitions.format"),
        ("ginger", "/dasddevs/dasda/blksize/4096", "dasddevs.format"),
        ("ginger", "/plugins/ginger/network/enp1s0/enable_sriov", "interfaces.enable_sriov"),
        ("ginger", "/plugins/ginger/firmware/upgrade", "firmware.upgrade"),
        ("gingerbase", "/plugins/gingerbase/host/swupdate", "host.swupdate"),
        ("gingerbase", "/plugins/gingerbase/host/swupdateprogress", "host.swupdateprogress"),
        ("gingerbase", "/plugins/gingerbase/host/packagesupdate/vim/upgrade", "packagesupdate.upgrade"),
        ("gingerbase", "/plugins/gingerbase/debugreports/report-1795404140195", "debugreports.create"),
        ("gingers390x", "/plugins/gingers390x/cioignore/remove", "cio_ignore.remove"),
        ("gingers390x", "/plugins/gingers390/lunscan/trigger", "lunscan.trigger"),
        ("gingers390x", "/plugins/gingers390x/nwdevices/0.0.f500/configure", "nwdevices.configure"),
        ("gingers390x", "/plugins/gingers390x/nwdevices/0.0.f500/unconfigure", "nwdevices.unconfigure"),
        ("kimchi", "/swaps/file_loc/", "other"),
        ("kimchi", "/lvs/vg_name/vg0", "other"),
        ("sample", "/plugins/kimchi/vms/web", "other"),
        ("wok", "/plugins/kimchi/vms/web", "vms.create"),
        ("wok", "/swaps/file_loc/", "swaps.create"),
        ("wok", "/internal/cleanup", "other"),
    ],
)
def test_targets(app: str, target_uri: str, expected: str) -> None:
    """A target_uri alone tells the operation of its own application's task."""
    assert expected == OPERATIONS.of_target(app, target_uri)


@given(NAMES)
def test_names_do_not_hide_the_operation(name: str) -> None:
    """Whatever a guest is called, what is done to it is told."""
    guest = f"/plugins/kimchi/vms/{name}"
    targets = {
        f"{guest}-clone-1795404140195549/clone": "vms.clone",
        f"{guest}/migrate": "vms.migrate",
        f"{guest}/hostdevs/": "vms.hostdevs.attach",
    }

    assert targets == {target: OPERATIONS.of_target("kimchi", target) for target in targets}


@pytest.mark.parametrize(
    "part", ["-clone-1", "/storagevolumes/", "-clone-1.", "/hostdevs", "/snapshots", "0"]
)
def test_hostile_target(part: str) -> None:
    """A target_uri of a megabyte that nearly matches everywhere is answered as any other.

    No clock is read: a pattern that backtracked would not come back.
    """
    prefix = "/plugins/kimchi/storagepools/p/storagevolumes/"
    target = prefix + part * (1_000_000 // len(part)) + "/clon"

    assert OPERATIONS.of_target("kimchi", target) == "storagevolumes.create"


@given(
    st.sampled_from([*OPERATIONS.apps, "sample", ""]),
    st.sampled_from(["POST", "PUT", "DELETE", "TASK", ""]),
    st.one_of(
        st.text(max_size=12), st.sampled_from(["WOKRES0001L", "KCHPOOL0001L", "GINAUD0001L", "KCHVM0099L"])
    ),
    st.dictionaries(
        st.sampled_from(["ident", "type", "rule", "num_vfs"]),
        st.one_of(st.text(max_size=40), st.integers(), st.none(), st.lists(st.integers())),
    ),
    st.one_of(st.none(), st.integers()),
)
def test_answers_are_finite(
    app: str, method: str, code: str, params: dict[str, Any], status: int | None
) -> None:
    """Any request gets a lower case name, nothing, or what looks like a code."""
    operation = OPERATIONS.of_request(app, method, code, params, status)

    assert re.fullmatch(r"[a-z][a-z0-9_.]*|[A-Z][A-Z0-9]{2,40}|", operation)


@given(
    st.sampled_from([*OPERATIONS.apps, "sample", ""]),
    st.sampled_from(["", *(target_of(shape) for _, shape in shapes())]),
    st.text(max_size=40),
)
def test_targets_are_finite(app: str, start: str, rest: str) -> None:
    """Any task gets an operation of its own application that starts tasks, or `other`."""
    operation = OPERATIONS.of_target(app, start + rest)
    apps = OPERATIONS.apps if app == "wok" else [app]

    assert operation in {"other", *(o for a in apps for o in OPERATIONS.tasks(a))}


def test_rows_that_agree() -> None:
    """Two rows with one name for a request need no decision, and do not lose their name."""
    row = Row("kimchi", "POST", "XYZ0001L", "xyz.create")
    operations = Operations([row, row._replace(app="ginger", target="/xyz/{name}", evidence="named")])

    assert operations.of_request("kimchi", "POST", "XYZ0001L", {}, 200) == "xyz.create"
    assert (
        operations.apps,
        operations.tasks("kimchi"),
        operations.tasks("ginger"),
    ) == (("kimchi", "ginger"), (), ("xyz.create",))


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        pytest.skip("the corpus is not here")

    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line.startswith(b"{")]


def test_study_of_tasks() -> None:
    """Every request that the study of Wok's tasks has found to start one has the name given there."""
    study = CORPUS.parent / "wok" / "operations.tsv"
    if not study.exists():
        pytest.skip("the study is not here")

    with study.open(encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file, delimiter="\t") if r["operation_id"] != "-" and r["msg_code"]]
    expected = {(r["plugin"], r["method"], r["msg_code"], r["operation_id"]) for r in rows}

    params = {"ident": TASK_ID}
    assert len(expected) > 20
    assert expected == {
        (app, method, code, OPERATIONS.of_request(app, method, code, params, 202))
        for app, method, code, _ in expected
    }


@pytest.mark.parametrize("name", ["wok-2.3.0", "wok-3.0.0-calm"])
def test_corpus(name: str) -> None:
    """In real logs a request and the task it started are known by the same name, each on its own."""
    requests = {}
    for record in _lines(CORPUS / name / "user-requests.data"):
        info, message = record["info"], record["message"]
        app = info["app"].rpartition("/")[2] or "wok"
        requests[record["id"]] = (
            app,
            OPERATIONS.of_request(app, info["req"], message["code"], message["params"], info["status"]),
        )

    pairs = set()
    for task in _lines(CORPUS / name / "truth.jsonl"):
        if task["type"] == "task" and task["request_record_id"] in requests:
            app, operation = requests[task["request_record_id"]]
            pairs.add((operation, OPERATIONS.of_target(app, task["target_uri"])))

    # slowjobs and agings are of no plug-in that exists
    invented = {("collection.create", "other")}
    assert len(pairs - invented) > 15
    assert {(operation, operation) for operation, _ in pairs - invented} == pairs - invented
