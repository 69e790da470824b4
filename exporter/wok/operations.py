"""Finds the operation of a request or a task, a short stable name such as `vms.clone` or `login`.

Wok's log identifies a request by its message code. Every controller of Wok, Kimchi, Ginger,
Gingerbase and gingers390x has a table of these codes, one for each method and each action of its
resource. `operations.tsv` combines these tables. It has a name for each code. For operations that
start tasks, it also has the form of the task's target_uri, and what that proves. A code has the
same meaning under every application, because each plug-in also serves Wok's login and tasks.

For most codes, code and method determine the operation. Three need more:

* `WOKRES0001L` is the code of all controllers that have none of their own. Some real operations use
  it: restoring a backup in Ginger, killing a task, dismissing a notification.
* `KCHPOOL0001L` creates a storage pool. With the type `kimchi-iso` it is a task that scans the host
  for ISO images. The status 202 shows this too, because the type may be overwritten before it is
  logged.
* `GINAUD0001L` created a rule for three weeks in August 2016. Since then, it loads a file of rules.

A task without a known request still has a target_uri, and most operations make one that differs
from all others. Only the literal parts are compared, because the names in between can contain
anything: blanks, slashes, newlines, another URI. The result is always a name in the table, `other`,
or, for requests, an unknown code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

from exporter.wok.resource_words import ResourceWords
from exporter.wok.target_templates import UUID, Template, text_of

CODE = re.compile(r"[A-Z][A-Z0-9]{2,40}")
"""The form of message codes: WOKRES0001L, GS390XIONW0001L, GINISCSIATH001L."""

OTHER = "other"
"""The operation of everything that is not in the table."""

GENERIC = frozenset({"WOKCOL0001L", "WOKRES0001L"})
"""The codes of all controllers that have none of their own."""

ACCEPTED = 202
"""The status of a request that started a task."""

COUNTER_LIMIT = 10**9
"""Up to Wok 2.2, task ids are numbers from 1. No host has started so many tasks."""

PYTHON_NONE = "None"
"""How Wok for Python 2 logs a parameter that is null. It may also be a name, so a request with it
has the forms of both."""

SEEN_MAX = 256
"""Size of the cache of target_uris. That of a task is looked up several times in a row."""

EVIDENCE = ("named", "shared", "repeats", "twice", "nests", "may_nest", "unlogged")
"""Properties of an operation's target_uri. The comment at the top of the table explains them."""


class Form(NamedTuple):
    """A target_uri as far as a request determines it.

    `named`: no task of another request would have it. `repeats`: tasks report again long after
    their end. `nests`: a nested task has the same target_uri and ends first. `may_nest`: this was
    observed, although it should not happen. A match by a form that repeats or nests is not exact,
    or not always. `timed`: the target_uri contains the start of the task.
    """

    text: str
    named: bool
    repeats: bool = False
    nests: bool = False
    timed: bool = False
    may_nest: bool = False


class Target(NamedTuple):
    """A form of a task's target_uri; `epoch` is the start of the task in nanoseconds, or 0."""

    text: str
    epoch: int = 0


class Row(NamedTuple):
    """One line of `operations.tsv`.

    `method` and `code` are empty if no request is logged for the operation. `target` is empty if
    the operation starts no task.
    """

    app: str
    method: str
    code: str
    operation: str
    when: str = ""
    target: str = ""
    evidence: str = ""
    resource: str = ""


class TaskShape(NamedTuple):
    """One form in which Wok makes the target_uri of an operation's tasks.

    `is_asked_for` is False for tasks that are not started by a request of their own.
    """

    operation: str
    is_asked_for: bool
    template: Template
    conditions: tuple[Condition, ...]
    evidence: frozenset[str]
    is_named: bool
    repeats: bool
    nests: bool
    may_nest: bool
    words: ResourceWords

    def form(self, params: Mapping[str, Any]) -> Form | None:
        """Return the form of the target_uri of a request's task, None if it has no such task."""
        if not self.is_asked_for:
            return None
        for condition in self.conditions:
            if not condition.holds(params):
                return None
        text = self.template.fill(params)
        if not text:
            return None
        return Form(text, self.is_named, self.repeats, self.nests, self.template.is_timed, self.may_nest)


class Condition(NamedTuple):
    """A parameter that a request must have, or must not have, with one of `values` if there are
    any.
    """

    name: str
    values: tuple[str, ...]
    is_wanted: bool

    @classmethod
    def read(cls, source: str) -> Condition:
        """Read `name`, `!name`, `name=a,b` or `!name=a,b`."""
        name, _, values = source.removeprefix("!").partition("=")
        return cls(name, tuple(values.split(",")) if values else (), not source.startswith("!"))

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Return whether the parameters of a request meet this condition."""
        text = text_of(params, self.name)
        if text == PYTHON_NONE and not self.is_wanted:
            text = ""
        return (text in self.values if self.values else bool(text)) == self.is_wanted


class Operations:
    """The table of operations. It does not change after the start.

    `apps` are its applications, in its order: kimchi, ginger, gingerbase, gingers390x, wok.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = tuple(rows)
        self.apps = tuple(dict.fromkeys(row.app for row in rows))
        self._by_request: dict[tuple[str, str], str] = {}
        shapes: dict[str, list[TaskShape]] = {app: [] for app in self.apps}
        self._by_operation: dict[tuple[str, str], list[TaskShape]] = {}
        self._by_code: dict[tuple[str, str], list[TaskShape]] = {}
        for row in rows:
            if row.code:
                # A request with two operations: the empty name makes `of_request` call `_disputed`.
                known = self._by_request.setdefault((row.method, row.code), row.operation)
                if known != row.operation:
                    self._by_request[row.method, row.code] = ""
            if row.target:
                shape = _shape(row)
                shapes[row.app].append(shape)
                self._by_operation.setdefault((row.app, row.operation), []).append(shape)
                if row.code:
                    self._by_code.setdefault((row.app, row.code), []).append(shape)
        self._shapes = {app: tuple(of_app) for app, of_app in shapes.items()}
        # A task that was started outside of a request is logged under the application wok.
        everything = [shape for of_app in self._shapes.values() for shape in of_app]
        told_by = {**self._shapes, "wok": tuple(everything)}
        self._constants = {
            app: {shape.template.source: shape for shape in of_app if shape.template.is_constant}
            for app, of_app in told_by.items()
        }
        self._recognised = {app: _by_prefix(of_app) for app, of_app in told_by.items()}
        self._seen: dict[tuple[str, str], TaskShape | None] = {}
        self._marked = {
            app: tuple(shape.template for shape in of_app if shape.is_asked_for and shape.template.marks)
            for app, of_app in self._shapes.items()
        }

    @classmethod
    def load(cls) -> Operations:
        """Read `operations.tsv` from the package; raise ValueError if it is damaged."""
        text = resources.files(__package__).joinpath("operations.tsv").read_text("utf-8")
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        width = len(Row._fields)
        rows = []
        for line in lines[1:]:
            cells = line.split("\t")
            if not 4 <= len(cells) <= width:
                raise ValueError(f"operations.tsv: {len(cells)} cells in {line!r}")
            rows.append(Row(*cells))
        return cls(rows)

    def of_request(
        self, app: str, method: str, code: str, params: Mapping[str, Any], status: int | None
    ) -> str:
        """Return the operation of a request.

        It is a name in the table, or the code itself if it has the form of a code but is not in the
        table. Otherwise it is `other`, or empty for a record without a code (Wok 2.1 and 2.2).

        `params` are those of the record's message, `status` is Wok's. Source of the codes: the
        controllers' tables of requests, Wok 2.2 to 3.0 and their plug-ins.
        """
        operation = self._by_request.get((method, code))
        if operation:
            return operation

        if operation is not None:
            return _disputed(app, method, code, params, status)

        if not code:
            return ""

        return code if CODE.fullmatch(code) else OTHER

    def of_target(self, app: str, target_uri: str) -> str:
        """Return the operation of a task by its target_uri, or `other`.

        The target_uri must belong to this application. Under the application wok, it may belong to
        any: Wok itself starts no tasks, but a task that was started outside of a request is logged
        under wok. Names can contain anything. If a name looks like the target_uri of another
        operation, the more specific operation is returned. Source: the `AsyncTask` calls in the
        models, 2016 to 2020. Takes time linear in the length.
        """
        shape = self.shape_of(app, target_uri)
        return shape.operation if shape is not None else OTHER

    def shape_of(self, app: str, target_uri: str) -> TaskShape | None:
        """Return the shape in the table that a task's target_uri has, None if there is none."""
        key = (app, target_uri)
        try:
            return self._seen[key]
        except KeyError:
            shape = self._recognise(app, target_uri)
        if len(self._seen) >= SEEN_MAX:
            self._seen.clear()
        self._seen[key] = shape
        return shape

    def _recognise(self, app: str, target_uri: str) -> TaskShape | None:
        shape = self._constants.get(app, {}).get(target_uri)
        if shape is not None:
            return shape
        for prefix, shapes in self._recognised.get(app, {}).items():
            if target_uri.startswith(prefix):
                for shape in shapes:
                    if shape.template.fits(target_uri):
                        return shape
        return None

    def forms(self, app: str, code: str, operation: str, params: Mapping[str, Any]) -> tuple[Form, ...]:
        """Return the forms of the target_uri that a task of this request may have.

        There are none for requests that start no task, or that are not in the table. If a request
        failed, its operation may be unknown. Then the forms of all operations of its code count.
        """
        shapes = self._by_operation.get((app, operation)) or self._by_code.get((app, code)) or ()
        forms: list[Form] = []
        for shape in shapes:
            form = shape.form(params)
            if form is not None and form not in forms:
                forms.append(form)
        return tuple(forms)

    def targets(self, app: str, target_uri: str) -> list[Target]:
        """Return the forms of a task's target_uri, the strongest first.

        The first is the target_uri itself. In the others, marks replace the parts that Wok made up.
        """
        targets = [Target(target_uri)]
        for template in self._marked.get(app, ()):
            generalised = template.generalise(target_uri)
            if generalised is not None:
                targets.append(Target(*generalised))
        return targets

    def is_unlogged(self, app: str, target_uri: str) -> bool:
        """Return whether tasks with this target_uri have no request in the log.

        Then each of their end records is a task of its own.
        """
        shape = self.shape_of(app, target_uri)
        return shape is not None and "unlogged" in shape.evidence

    def reports_twice(self, app: str, target_uri: str) -> bool:
        """Return whether two records report one failure of a task with this target_uri.

        The first has no error code, the second has one.
        """
        shape = self.shape_of(app, target_uri)
        return shape is not None and "twice" in shape.evidence

    def may_be_unknown(self, app: str, target_uri: str) -> bool:
        """Return whether a task with this target_uri may have an operation that is not in the
        table.

        This is so if no shape fits, or if the shape ends with a name, which can contain anything.
        """
        shape = self.shape_of(app, target_uri)
        return shape is None or shape.template.ends_open

    def may_start_task(self, app: str, code: str, operation: str) -> bool:
        """Return whether a request may start a task.

        This includes codes that are not in the table, and those of controllers without a code of
        their own.
        """
        return (
            (app, operation) in self._by_operation
            or (app, code) in self._by_code
            or code in GENERIC
            or CODE.fullmatch(operation) is not None
        )

    def resource(self, app: str, operation: str, params: Mapping[str, Any]) -> str:
        """Return the resource of a request in words (`guest web`); empty if the table has none."""
        for shape in self._by_operation.get((app, operation), ()):
            words = shape.words.of(params)
            if words and all(condition.holds(params) for condition in shape.conditions):
                return words
        return ""

    def resource_of_task(self, app: str, target_uri: str) -> str:
        """Return the resource of a task in words, as far as its target_uri has it; else nothing."""
        shape = self.shape_of(app, target_uri)
        return "" if shape is None else shape.words.of(shape.template.read(target_uri))

    @property
    def rows(self) -> Sequence[Row]:
        """All lines of the table."""
        return self._rows

    def shapes(self, app: str) -> tuple[TaskShape, ...]:
        """Return the shapes of an application's target_uris, the more specific ones first."""
        return self._shapes.get(app, ())

    def tasks(self, app: str) -> tuple[str, ...]:
        """Return the operations of the application that start tasks, sorted;
        none if it is unknown.
        """
        return tuple(sorted({shape.operation for shape in self._shapes.get(app, ())}))


def uuid_bytes(text: str) -> bytes:
    """Return the 16 bytes of a record's id; empty if it is not a uuid."""
    raw = bytes.fromhex(text.replace("-", "")) if UUID.fullmatch(text) else b""
    return raw if any(raw) else b""


def _by_prefix(shapes: Sequence[TaskShape]) -> dict[str, list[TaskShape]]:
    """Return the shapes by the beginning of their target_uris, without duplicates."""
    found: dict[str, list[TaskShape]] = {}
    outlines = set()
    for shape in shapes:
        outline = (shape.operation, *shape.template.outline)
        if outline not in outlines:
            outlines.add(outline)
            found.setdefault(shape.template.prefix, []).append(shape)
    return found


def _shape(row: Row) -> TaskShape:
    evidence = frozenset(row.evidence.split())
    if not evidence <= set(EVIDENCE):
        raise ValueError(f"operations.tsv: unknown evidence in {row.evidence!r}")
    return TaskShape(
        row.operation,
        bool(row.code),
        Template(row.target),
        tuple(map(Condition.read, row.when.split())),
        evidence,
        "named" in evidence,
        "repeats" in evidence,
        "nests" in evidence,
        "may_nest" in evidence,
        ResourceWords(row.resource),
    )


def _disputed(app: str, method: str, code: str, params: Mapping[str, Any], status: int | None) -> str:
    # These codes are in the table more than once for the same method.
    if code == "KCHPOOL0001L":
        is_scan = status == ACCEPTED or params.get("type") == "kimchi-iso"
        return "storagepools.deep_scan" if is_scan else "storagepools.create"

    if code == "GINAUD0001L":
        return "audit.rules.create" if "rule" in params else "audit.load_rules"

    ident = params.get("ident")
    name = ident if isinstance(ident, str) else ""
    is_uuid = UUID.fullmatch(name) is not None

    if method == "DELETE":
        # All plug-ins serve Wok's tasks, but the name of another resource may be a number too.
        if is_uuid or (app == "wok" and _is_counter(ident)):
            return "tasks.kill"
        # The id of a notification is its message code.
        return "notifications.delete" if app == "wok" and CODE.fullmatch(name) else "resource.delete"

    if app == "ginger" and "num_vfs" in params:
        return "interfaces.enable_sriov"

    # Ginger's only other action without a code is for network interfaces, and starts no task.
    return "backup.restore" if app == "ginger" and (is_uuid or status == ACCEPTED) else "resource.action"


def _is_counter(ident: Any) -> bool:
    # In logs of Python 2, numbers are texts.
    if isinstance(ident, str):
        return ident.isdecimal() and len(ident) < len(str(COUNTER_LIMIT))

    return type(ident) is int and 0 < ident < COUNTER_LIMIT
