"""What a request or a task works on, in words."""

from __future__ import annotations

import base64

import pytest

from exporter.records import OpenTask, TaskRow
from exporter.store.task_view import of_ended, of_running
from exporter.wok.operations import Operations
from exporter.wok.resource_words import RESOURCE_CHARS_MAX, ResourceWords, decoded

from .store_made import open_task, task_row

OPERATIONS = Operations.load()
GUEST = base64.urlsafe_b64encode("gäst".encode()).decode()
DEVICE = base64.urlsafe_b64encode(b"/dev/bus/usb/001/002").decode()
VMS = "/plugins/kimchi/vms/"
POOLS = "/plugins/kimchi/storagepools/"


@pytest.mark.parametrize(
    ("app", "target_uri", "words"),
    [
        ("kimchi", f"{VMS}db01/migrate", "guest db01"),
        ("kimchi", f"{VMS}a/b/migrate", "guest a/b"),
        ("kimchi", f"{VMS}web-clone-1479000000000000/clone", "guest web"),
        ("kimchi", f"{VMS}{GUEST}/hostdevs/{DEVICE}", "device /dev/bus/usb/001/002 of guest gäst"),
        ("kimchi", f"{VMS}db01/snapshots/nightly", "snapshot nightly of guest db01"),
        ("kimchi", f"{POOLS}p 1/storagevolumes/x.img", "volume x.img of pool p 1"),
        ("ginger", "/vgs/vg_name/data", "volume group data"),
        ("ginger", "/partitions/dm-0/fstypexfs", "partition dm-0"),
        ("gingerbase", "/plugins/gingerbase/host/swupdate", "host"),
        # Which part is the guest?
        ("kimchi", f"{VMS}a/snapshots/b/snapshots/c", ""),
        # The target_uri names no swap, only the request does.
        ("ginger", "/swaps/file_loc/", ""),
        ("kimchi", f"{VMS}{'x' * 2000}/migrate", ""),
        ("acme", "/plugins/acme/things/1", ""),
    ],
)
def test_a_target_uri_in_words(app: str, target_uri: str, words: str) -> None:
    """A target_uri is said in words where its names can be told apart, and not at all otherwise."""
    assert OPERATIONS.resource_of_task(app, target_uri) == words


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (GUEST, "gäst"),
        (DEVICE, "/dev/bus/usb/001/002"),
        ("web01234", "web01234"),
        ("", ""),
        ("pci_0000_00_02_0", "pci_0000_00_02_0"),
        (base64.urlsafe_b64encode(b"plain text").decode(), "cGxhaW4gdGV4dA=="),
        (base64.urlsafe_b64encode("\x1b[31mä".encode()).decode(), "G1szMW3DpA=="),
        (base64.urlsafe_b64encode(b"\xff\xfe\xfd").decode(), "__79"),
        ("=" * 4000, "=" * 4000),
    ],
)
def test_only_kimchis_own_base64_is_decoded(name: str, meant: str) -> None:
    """A name that merely could be base64 stays as it is, and so does one that hides control characters."""
    assert decoded(name) == meant


def test_words_are_bounded() -> None:
    """A long name is cut, with an ellipsis."""
    words = ResourceWords("guest {ident}").of({"ident": "x" * 100_000})

    assert (len(words), words[-1]) == (RESOURCE_CHARS_MAX, "…")


def test_the_request_says_more_than_the_target_uri() -> None:
    """The words of the request win, where it has any."""
    sure = TaskRow._make(task_row(1, correlation="likely", resource="guest db01"))
    running = OpenTask._make(open_task(5))

    assert of_ended(sure, resource="device x of guest db01").resource == "device x of guest db01"
    assert of_ended(sure).resource == "guest db01"
    assert of_running(running, now=1, requests=1, resource="guest web").resource == "guest web"
