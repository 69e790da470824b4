"""What the fuzzer feeds, and what must hold for any bytes: one function for each target.

A target takes bytes and raises AssertionError where an invariant is broken; any other exception is
a finding as well. `python -m tests.fuzz_run` looks for such bytes, guided by coverage, and
`tests/test_fuzz.py` replays those it has kept in `tests/fuzz_corpus`.

`Target.scaled` is the same work without the checks. It is done on an input repeated some times and
on four times as much, and the executed lines of Python are counted: they must not grow faster than
the input. A count is the same on every machine, a time is not.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.message import Message
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from exporter.config import config as configuration
from exporter.config import environment_file
from exporter.config.options import OPTIONS
from exporter.deliver import otlp_env, responses
from exporter.http import cross_site, head, host_check
from exporter.http.auth import BasicAuth
from exporter.http.routes import Response
from exporter.parse.parser import MAX_ENTRIES, MAX_STRING_CHARS, Parser
from exporter.parse.redact import MAX_DEPTH, may_hold_secret, redact_text, redact_value, safe_excerpt
from exporter.parse.timezone import Zones
from exporter.records import SIGNALS, Continuation, Line, Parsed, Record, Rejected
from exporter.source.line_reader import Reader
from exporter.web import parameters
from exporter.wok import messages
from exporter.wok.error_log import (
    IDS_MAX,
    STACK_BYTES_MAX,
    TEXT_BYTES_MAX,
    TRACEBACK_LINES_MAX,
    Block,
    ErrorLog,
    Header,
    Item,
)
from exporter.wok.message_tables import TEXT_CHARS

CANARY = "cAnArY"
FILE = bytes(range(16))
SCALED_BYTES = 4096
SCALE = 4
GROWTH_MAX = 2 * SCALE
"""Work that grows with the square of its input grows by 16."""
ITEMS_MAX = 20
"""Of one line: eight salvaged records, what stands before each, and a hole."""
STATE_CHARS_MAX = 256 * 1024
"""For lines of a few kilobytes, as the fuzzer makes them."""


class Target(NamedTuple):
    """`modules` are instrumented for coverage; `scaled` is None where the input has no size to grow."""

    check: Callable[[bytes], None]
    modules: tuple[str, ...]
    scaled: Callable[[bytes], object] | None = None


# Work


def work(run: Callable[[], object]) -> int:
    """Return how many lines of Python a call executes."""
    count = 0

    def local(_: FrameType, event: str, __: Any) -> Any:
        nonlocal count
        count += event == "line"
        return local

    before = sys.gettrace()
    sys.settrace(lambda _, __, ___: local)
    try:
        run()
    finally:
        sys.settrace(before)
    return count


def check_linear(target: Target, data: bytes) -> None:
    """Raise AssertionError when work grows faster than its input."""
    scaled = target.scaled
    if scaled is None or not data:
        return
    base = data * math.ceil(SCALED_BYTES / len(data))
    once = work(lambda: scaled(base))
    more = work(lambda: scaled(base * SCALE))
    assert more <= GROWTH_MAX * once + 2000, f"{once} lines, and {more} for {SCALE} times the input"


def check_printable(text: str) -> None:
    """Raise AssertionError for what moves a cursor or turns a direction; unusual blanks are text."""
    assert not {unicodedata.category(c) for c in text} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}, ascii(
        text
    )


# Parser


@cache
def utc() -> Zones:
    """Return the zone that all times are in."""
    return Zones("UTC")


def lines_of(data: bytes) -> Iterator[Line]:
    """Yield the lines of a file of these bytes."""
    offset = 0
    for part in data.split(b"\n"):
        yield Line(FILE, offset, part, len(part))
        offset += len(part) + 1


def parsed(data: bytes) -> list[list[Parsed]]:
    """Parse a file at one go."""
    parser = Parser("fuzz", utc())
    return [parser.feed(line) for line in lines_of(data)]


def texts_in(value: object) -> Iterator[str]:
    """Yield all texts of decoded JSON, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        assert len(value) <= MAX_ENTRIES
        for key, item in value.items():
            yield key
            yield from texts_in(item)
    elif isinstance(value, list):
        assert len(value) <= MAX_ENTRIES
        for item in value:
            yield from texts_in(item)


def depth_of(value: object) -> int:
    """Return how deep decoded JSON is nested."""
    if isinstance(value, Mapping):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


def check_item(item: Parsed, line: Line) -> None:
    """What leaves the parser is bounded, is UTF-8, and lies in its line."""
    assert line.offset <= item.offset <= line.offset + max(len(line.data), 3)
    if isinstance(item, Rejected):
        assert len(item.excerpt) <= 200
        check_printable(item.excerpt)
    if isinstance(item, Record):
        assert depth_of(item.params) <= MAX_DEPTH + 1
        for text in (*texts_in(item.params), *texts_in(item.error_params)):
            assert len(text) <= MAX_STRING_CHARS + 1
            text.encode()
        bounded = (
            (item.app, 64),
            (item.user, 256),
            (item.address, 256),
            (item.code, 64),
            (item.error_code, 64),
        )
        for text, limit in (*bounded, (item.text, 1024), (item.target_uri, 4096), (item.task_id, 64)):
            assert len(text) <= limit
            text.encode()
        assert len(item.trace_id) == 16
        assert any(item.trace_id)
        assert 0 <= item.time < 2**63
        assert item.status is None or 0 <= item.status < 2**31


def parser(data: bytes) -> None:
    """Any log: items are bounded, and a restart behind any line changes nothing."""
    whole = parsed(data)
    state = ""
    for line, items in zip(lines_of(data), whole, strict=True):
        resumed = Parser("fuzz", utc(), state)
        assert resumed.feed(line) == items
        state = resumed.state
        assert len(state) <= STATE_CHARS_MAX
        assert 1 <= len(items) <= ITEMS_MAX
        for item in items:
            check_item(item, line)


def proof(data: bytes) -> None:
    """A value that a user typed neither poses as a record of its own, nor hides that of another user."""
    value = data.decode("utf-8", "replace")
    victim = hashlib.sha256(data).hexdigest()
    params = json.dumps({"ident": value, "remote_host": ""})
    info = {"status": 202, "zone": "UTC", "ip": "", "app": "kimchi", "req": "POST", "user": "mallory"}
    code = {"msgCode": "KCHVM0009L", "time": "01:20:26", "date": "2016-08-09"}
    first = f"{json.dumps({**info, **code})} >>> {params} >>> Clone guest '{value}'\n"
    second = f"{json.dumps({**info, **code, 'user': victim})} >>> {{}} >>> Done"
    items = [item for each in parsed((first + second).encode()) for item in each]
    records = [item for item in items if isinstance(item, Record)]
    assert records[0].user == "mallory"
    assert records[-1].user == victim[:256]
    # NUL bytes look like a hole in the file: they are told, but are no record either.
    further = Continuation | Rejected if "\0" in value else Continuation
    assert all(isinstance(item, further) for item in items[1:-1]), items[1:-1]


# Redaction

FORMS: tuple[Callable[[str], str], ...] = (
    lambda secret: repr({"passwd": secret, "type": "vnc"}),
    lambda secret: json.dumps({"password": secret, "type": "vnc"}),
    lambda secret: json.dumps(json.dumps({"client-secret": secret})),
    lambda secret: repr(repr({"auth": {"token": secret}})),
    lambda secret: repr([("password", secret), ("a", 1)]),
    lambda secret: repr({"apiKey": [secret, {"x": secret}]}),
)
WORD_FORMS: tuple[Callable[[str], str], ...] = (
    lambda secret: f"password={secret} next",
    lambda secret: f"mount --password {secret} /mnt",
    lambda secret: f"<passwd>{secret}</passwd>",
    lambda secret: f"ftp://ada:{secret}@host/path",
    lambda secret: f"Authorization: Basic {secret}",
)


def redaction(data: bytes) -> None:
    """A password of any characters, in any form, before and behind any text, leaves nothing behind."""
    form, _, rest = data.partition(b"\0")
    words = rest.decode("utf-8", "replace").replace(CANARY, "canary")
    middle, _, around = words.partition("\0")
    number = form[0] if form else 0
    if number % 2:
        secret = CANARY + "".join(c for c in middle if c.isalnum()) + CANARY
        made = WORD_FORMS[number // 2 % len(WORD_FORMS)](secret)
    else:
        secret = CANARY + middle + CANARY
        made = FORMS[number // 2 % len(FORMS)](secret)
    # Behind it may stand anything; before it, what ends a word.
    text = f"{made} {around}"
    redacted = redact_text(text)
    assert CANARY not in redacted, redacted
    assert redact_text(redacted) == redacted, redacted
    assert CANARY not in safe_excerpt(text.encode())
    value = redact_value({"a": [text, {"passwd": {middle: secret}}]})
    assert CANARY not in repr(value)
    for each in (redacted, around, middle):
        if not may_hold_secret(each):
            assert redact_text(each) == each
    excerpt = safe_excerpt(data)
    assert len(excerpt) <= 200
    check_printable(excerpt)


# Answers of backends

MEDIA = ("application/x-protobuf", "application/json", "text/plain", "text/html", "", "application/grpc")
CODES = (*sorted(responses._GRPC_KINDS), "OK", "SOMETHING_NEW")


class RpcError(NamedTuple):
    """The failure of a call, as grpc tells it."""

    name: str
    words: str
    metadata: tuple[tuple[str, bytes], ...]

    def code(self) -> Any:
        """Return something with a name."""
        return self

    def details(self) -> str:
        """Return the words of the backend."""
        return self.words

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        """Return what came behind the answer."""
        return self.metadata


def answers(data: bytes) -> None:
    """Any answer of a backend is one of five, with words that may be printed and a finite reason."""
    kind, _, rest = data.partition(b"\n")
    headed, _, content = rest.partition(b"\n\n")
    first, second, third = (*kind[:3], 0, 0, 0)[:3]
    signal = SIGNALS[first % 2]
    message = Message()
    message["Content-Type"] = MEDIA[second % len(MEDIA)]
    for line in headed.decode("latin-1").splitlines()[:8]:
        name, colon, value = line.partition(":")
        if colon and re.fullmatch(r"[A-Za-z-]{1,40}", name):
            message[name] = value.strip()
    headers: Any = message
    words = content.decode("utf-8", "replace")
    metadata = (("grpc-status-details-bin", content), ("google.rpc.retryinfo-bin", headed))
    for answer in (
        responses.http_answer(signal, 200 + third % 4 * 100 + second % 32, headers, content),
        responses.http_answer(signal, 200, headers, content),
        responses.http_answer(signal, 400, headers, content),
        responses.grpc_answer(signal, RpcError(CODES[third % len(CODES)], words, metadata)),
        responses.grpc_answer(signal, RpcError("UNAVAILABLE", words, metadata[1:])),
    ):
        assert answer.kind in ("accepted", "partial", "retry", "rejected", "config")
        assert re.fullmatch(r"[a-z0-9_]{0,40}", answer.reason), answer
        assert 0 <= answer.rejected < 2**63, answer
        assert answer.retry_after_seconds is None or 0 <= answer.retry_after_seconds < math.inf, answer
        assert len(answer.message) <= 400, answer
        assert answer.message.isprintable(), answer
    place = f"https://ada:{CANARY}@{words[:200]}"
    assert CANARY not in responses.shown(place), responses.shown(place)


def read_answer(data: bytes) -> object:
    """Read an answer without checking it."""
    headers: Any = Message()
    return responses.http_answer("logs", 400, headers, data)


# HTTP


@cache
def no_users() -> BasicAuth:
    """Return authentication that knows nobody: credentials are decoded, no hash is computed."""
    return BasicAuth({})


def seen_of(data: bytes) -> tuple[object, ...]:
    """Return all that a handler can see of a request."""
    request, refusal, is_head = head.parse(data)
    if request is None:
        assert refusal is not None
        return (refusal, is_head)
    headers: Any = request.headers
    return (request.method, request.path, dict(request.query), headers.items(), is_head)


def http(data: bytes) -> None:
    """Any request has an answer, whatever comes behind its head and in however many pieces it comes."""
    ends = [end for end in range(1, len(data) + 1) if data[end - 1] == 10 and head.is_complete(data[:end])]
    if ends:
        # The connection parses what has arrived when the head is complete.
        assert seen_of(data[: ends[0]]) == seen_of(data)
    request, refusal, is_head = head.parse(data)
    if refusal is not None:
        top, body = head.render(refusal, is_head=is_head)
        assert top.count(b"\r\n\r\n") == 1
        assert len(top) + len(body) < 2048
    if request is None:
        return
    reply = Response(200, "text/plain", b"")
    checked = host_check.for_hosts({"/": lambda _: reply}, host_check.HostCheck("127.0.0.1"))
    checked |= cross_site.for_own_site(checked, linked=True)
    top, body = head.render(checked["/"](request), is_head=is_head)
    assert top.isascii()
    assert len(top) + len(body) < 4096
    no_users().remembered(request.headers.get("Authorization") or "")
    for read in (parameters.task_query, parameters.request_query, _nothing):
        try:
            found: Any = read(request.query)
        except parameters.ParameterError as error:
            said = str(error)
        else:
            said = ""
            assert found is None or 1 <= found.limit <= 2000
        assert said.isascii()
        assert said.isprintable()
        assert len(said) < 600


def _nothing(query: Mapping[str, list[str]]) -> None:
    parameters.no_query(query, "/api/status")


# Configuration


@cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder for files that must be read from a disk."""
    return tempfile.TemporaryDirectory(prefix="wok-exporter-fuzz-")


def variables_in(text: str) -> Iterator[tuple[str, str]]:
    """Yield variables from lines of NAME=value."""
    for line in text.split("\n"):
        name, equals, value = line.partition("=")
        if equals and name and "\0" not in line:
            yield name, value


def check_sentences(sentences: Iterable[str]) -> None:
    """What people are told is printable, bounded, and has no secret."""
    for sentence in sentences:
        assert CANARY not in sentence, sentence
        assert len(sentence) <= 1500, sentence
        assert sentence.replace("\n", "").isprintable(), ascii(sentence)


def config(data: bytes) -> None:
    """Any TOML file and any variables are a configuration, or sentences that say what is wrong."""
    toml, _, rest = data.partition(b"\0")
    text = rest.decode("utf-8", "replace")
    root = Path(folder().name)
    (root / "wok.toml").write_bytes(toml)
    environ = dict(variables_in(text))
    for command in ("run", "replay"):
        try:
            found = configuration.load({"config": str(root / "wok.toml")}, environ, command, root=root)
        except configuration.ConfigError as error:
            check_sentences(error.mistakes)
        else:
            check_sentences(found.warnings)
            found.first_time(10**18)
    lines = environment_file.parse(text)
    check_sentences(lines.mistakes)
    for option in OPTIONS.values():
        try:
            option.read(text)
        except ValueError as error:
            check_sentences([str(error)])


def otlp_variables(data: bytes) -> None:
    """Any OTEL variables are settings, or a sentence that quotes no header and no password."""
    environ = {f"OTEL_{name}": value for name, value in variables_in(data.decode("utf-8", "replace"))}
    hidden = environ.get("OTEL_HEADER", "")
    environ["OTEL_EXPORTER_OTLP_HEADERS"] = f"{hidden}authorization=Bearer {CANARY}{hidden}"
    # Files of this machine are none of the fuzzer's business.
    environ = {name: value for name, value in environ.items() if not name.endswith(("CERTIFICATE", "KEY"))}
    try:
        otlp_env.configured(environ)
    except otlp_env.OtlpConfigError as error:
        check_sentences([str(error)])
    for signal in SIGNALS:
        try:
            settings = otlp_env.read_settings(signal, environ)
        except otlp_env.OtlpConfigError as error:
            check_sentences([str(error)])
        else:
            for name, value in settings.headers:
                f"{name}: {value}".encode("ascii")
                assert f"{name}{value}".isprintable()
            assert 0 < settings.timeout_seconds < math.inf


# Message tables


def tables(data: bytes) -> None:
    """Any file is a table or a problem, and every sentence from it is bounded, printable and known again."""
    source, _, rest = data.partition(b"\0")
    path = Path(folder().name) / "i18n.py"
    path.write_bytes(source)
    loaded = messages.Messages.load([path])
    assert all(len(problem) < 1000 for problem in loaded.problems)
    words = rest.decode("utf-8", "replace").split("\0")
    params: dict[str, Any] = dict(zip(words[::2], words[1::2], strict=False))
    params["name"] = params["err"] = words[0]
    for code in (*list(loaded._templates)[:8], "KCHVM0009L", words[-1]):
        text = loaded.render(code, params)
        assert len(text) <= TEXT_CHARS
        assert not messages.UNSEEN.search(text)
        text.encode()
    found = loaded.code_of(words[0])
    assert not found or found in loaded._templates


# wok-error.log


def read_errors(data: bytes) -> list[Item]:
    """Read a file at one go."""
    log = ErrorLog(utc())
    return [item for line in data.split(b"\n") for item in log.feed(line)]


def errors(data: bytes) -> None:
    """Any wok-error.log: items are bounded and numbered, and a restart behind any line changes nothing."""
    whole = read_errors(data)
    assert [item.number for item in whole] == list(range(1, len(whole) + 1))
    lines = data.split(b"\n")
    resumed: list[Item] = []
    log, held = ErrorLog(utc()), 0
    for number, line in enumerate(lines, 1):
        resumed += log.feed(line)
        held = log.held
        assert held <= TRACEBACK_LINES_MAX + 1
        assert len(log.state) <= 64 * 1024
        if number % 3 == 0:
            # A restart: what is half read is read again.
            again = ErrorLog(utc(), log.state)
            assert not [item for late in lines[number - held : number] for item in again.feed(late)]
            assert again.state == log.state
            log = again
    assert resumed == whole
    for item in whole:
        if isinstance(item, Block):
            assert len(item.text.encode("utf-8", "replace")) <= TEXT_BYTES_MAX
            assert len(item.stack.encode("utf-8", "replace")) <= STACK_BYTES_MAX
            assert 1 <= len(item.ids) <= IDS_MAX
            assert CANARY not in item.text + item.stack
        elif isinstance(item, Header):
            assert len(item.task_id) == 36


# Lines of a growing file


class Growing:
    """A log file in memory."""

    is_packed = False

    def __init__(self) -> None:
        self.data = b""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return some bytes, fewer at the end."""
        return self.data[offset : offset + size]


def lines(data: bytes) -> None:
    """However a log grows and is read, its lines are the same, whole, and each once."""
    steps, _, log = data.partition(b"\0")
    longest = 16 + (steps[0] if steps else 0)
    wanted = []
    offset = 0
    for part in log.split(b"\n")[:-1]:
        wanted.append((offset, len(part), part if len(part) <= longest else part[:longest]))
        offset += len(part) + 1
    file: Any = Growing()
    reader = Reader(file, None, longest)
    found: list[tuple[int, int, bytes]] = []
    for step in (*(steps or b"\1"), *[256] * (len(log) // 256 + 1)):
        file.data = log[: len(file.data) + step]
        while True:
            before = reader.offset
            taken = reader.take(1 + step)
            found += [(line.offset, line.length, line.data) for line in taken]
            mark = reader.mark()
            if mark is not None and step % 2:
                reader = Reader(file, mark, longest)
            if not taken and reader.offset == before:
                break
    assert found == wanted


TARGETS: Mapping[str, Target] = {
    "parser": Target(
        parser, ("exporter.parse.parser", "exporter.parse.dialects"), lambda d: parsed(d.replace(b"\n", b" "))
    ),
    "proof": Target(proof, ("exporter.parse.continuation", "exporter.parse.dialects"), parsed),
    "redaction": Target(
        redaction, ("exporter.parse.redact",), lambda data: redact_text(data.decode("utf-8", "replace"))
    ),
    "answers": Target(answers, ("exporter.deliver.responses", "exporter.deliver.loki"), read_answer),
    "http": Target(http, ("exporter.http.head", "exporter.http.host_check", "exporter.web.parameters")),
    "config": Target(
        config, ("exporter.config.config", "exporter.config.values", "exporter.config.environment_file")
    ),
    "otlp_variables": Target(otlp_variables, ("exporter.deliver.otlp_env",)),
    "tables": Target(tables, ("exporter.wok.messages", "exporter.wok.english")),
    "errors": Target(errors, ("exporter.wok.error_log",), read_errors),
    "lines": Target(lines, ("exporter.source.line_reader",)),
}
