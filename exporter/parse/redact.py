"""Redacts secrets in all data that leaves the host.

Wok removes only a top-level `password` and `passwd` from its log. The password of a guest's
display, of an iSCSI pool or of a migration remains in clear text: as a nested JSON value (Wok 3),
in the repr of a Python 2 dict (`"{u'passwd': u'x'}"`, Wok 2), or in an error text that quotes the
whole request. So there are two functions. `redact_value` checks the keys of decoded JSON.
`redact_text` searches any string for the *name* of a secret that is followed by an assigned value,
at any level of quoting.

The search in texts fails closed. If a quoted value has no end, or no certain end, it is redacted up
to the next certain end, or to the end of the text. Redacting too much is a nuisance; redacting too
little is a leak. The result is deterministic, and the time is linear in the text. Redaction of a
redacted text changes nothing: a text is redacted until nothing more is found.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

from exporter.parse.urls import credentials, incomplete, may_hold_incomplete, may_hold_url

REDACTED = "[redacted]"
TOO_DEEP = "[too deep]"
MAX_DEPTH = 20
"""Levels of nesting that are kept: Wok's bodies have at most five, and each costs stack."""
PASSES_MAX = 4
"""Further searches of a redacted text. One suffices but for made-up texts; what needs more is left
out as a whole."""
MAX_KEY_CHARS = 64
"""Maximum characters of a name to the left and to the right of the stem that was found in it."""
MAX_BLANKS = 256
"""Blanks between a name and its value: pretty-printed dicts indent by the key's width."""
MAX_EXCERPT_CHARS = 200
MAX_EXCERPT_BYTES = 4096
"""Bytes of a line that are used for its excerpt: enough for 200 characters after redaction."""

# Words that name a secret: as a whole word, as the end of a word, or as any part of a word.
_WHOLE = frozenset({"pass", "passes", "pwd", "auth", "oauth", "authorization", "token", "tokens", "passcode"})
_ENDS = ("pwd", "pw", "token", "passcode", "pass")
# Words that end so and are no secret: English, filters of signals, and programs.
_PLAIN = frozenset(
    {"bypass", "compass", "encompass", "surpass", "trespass", "overpass", "underpass", "impass", "multipass"}
    | {"lowpass", "highpass", "bandpass", "allpass", "onepass", "singlepass"}
)
_PARTS = ("password", "passwd", "passphrase", "secret", "credential", "apikey", "privatekey", "accesskey")
_KEYS = ("apikey", "privatekey", "accesskey")

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_STEM = re.compile(
    r"pass|pw|secret|token|auth|credential|(?:api|private|access)[_.-]?key", re.IGNORECASE | re.ASCII
)
_NAME_CHARS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."
# A URL at the end of a text, which may be cut before the `@` that marks a credential.
_URL_CUT = re.compile(r"""(?::|%3a)(?:\\*/|%2f){2}[^\s]*\Z""", re.IGNORECASE)
_BARE = re.compile(r"""(?:[^\s'"]|['"](?![\s,;:.)\]}>]|\Z))+""")
_BARE_AFTER_QUOTED_NAME = re.compile(r"[^,}\])\s]+")
# Names for any value: `--value x`, `-v x`, `'value': x`. Only used if the text names a secret.
_VALUE_NAME = re.compile(
    r"(?<![A-Za-z0-9_.-])(?:-v|--?(?:[a-z]{1,16}-){0,3}val(?:ue)?|val(?:ue)?)(?![A-Za-z0-9_-])", re.IGNORECASE
)
# Programs that take a secret as the value of a short option, which says nothing by its name.
_PROGRAM = re.compile(r"(?<![A-Za-z0-9_-])(sshpass|curl|mysql[a-z]*)(?![A-Za-z0-9_-])")
_PROGRAM_OPTIONS = {
    "sshpass": re.compile(r"(?<![\w-])-v{0,2}p"),
    "curl": re.compile(r"(?<![\w-])(?:-[#a0-9fgGikIjlLnNOqRsSv]{0,8}[uU]|--(?:proxy-)?user(?![\w-]))"),
    "mysql": re.compile(r"(?<![\w-])-p(?![\s'\"\\,=]|\Z)"),
}
MAX_COMMAND_CHARS = 1024
"""Characters behind the name of a program that are searched for its options."""
_VALUE_OPTION = re.compile(r"-v|--?(?:[a-z]{1,16}-){0,3}val(?:ue)?", re.IGNORECASE)
_VALUE_KEYS = frozenset(
    prefix + word
    for word in ("value", "Value", "val", "VALUE", "data", "content")
    for prefix in ("", "new", "new_", "old", "old_", "set_")
)
_SECRET_NAME = re.compile(r"[A-Za-z0-9_.\[\]:/-]+(?:=\S*)?")
_SCHEME = re.compile(r"(?:basic|bearer|digest|negotiate|token)\Z", re.IGNORECASE)
_STRUCTURE = re.compile(r"[\[\](){}'\"]")
_PREFIXED = re.compile(r"(?:[uUbBrR]{1,2})?(\\*)(['\"])")
# The line of a jsonschema error before the value; it has the path to the value.
_INSTANCE = re.compile(r"On instance((?:\[[^\]\n]{1,256}\])+):\s")
_PLAIN_WAY = re.compile(r"(?:\[(?:u?'[\w.-]{1,64}'|\d{1,9})\])+")
_ESCAPED_ASCII = re.compile(r"\\u00[2-7]")
_ESCAPED_LETTER = re.compile(r"\\+u00([46][1-9a-fA-F]|[57][0-9aA])")


def redact_value(value: Any) -> Any:
    """Return decoded JSON with the values of secret keys replaced, at any depth and within strings.

    Values that are nested deeper than `MAX_DEPTH` become "[too deep]". Never raises.
    """
    return _walk(value, 0)


def redact_text(text: str) -> str:
    """Return a text with the values after names of secrets, and credentials in URLs, replaced.

    Supports Python reprs, JSON within strings (escaped any number of times), `password=x`,
    `--password x`, XML and the error texts of jsonschema. Never raises.
    """
    redacted = _redact_once(text)
    if redacted == text:
        return text
    # A mark in the place of a secret can give the text behind it another meaning.
    for _ in range(PASSES_MAX):
        before, redacted = redacted, _redact_once(redacted)
        if redacted == before:
            return redacted
    return REDACTED


def _redact_once(text: str) -> str:
    has_url = "://" in text or (("\\" in text or "%" in text) and may_hold_url(text.lower()))
    has_stem = _STEM.search(text) is not None
    has_program = "sshpass" in text or "curl" in text or "mysql" in text
    if has_stem and "On instance[" in text:
        text = _redact_schema_error(text)
    spans = list(credentials(text)) if has_url else []
    if may_hold_incomplete(text):
        spans = sorted([*spans, *incomplete(text)])
    if has_stem:
        spans += list(_secrets(text, spans))
    if has_program:
        spans += _given_to_programs(text)
    return _without(text, spans) if spans else text


def _secrets(text: str, known: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield spans of values assigned to names of secrets, outside the `known` spans."""
    done = 0
    is_named = False
    inside = 0
    for hit in _STEM.finditer(text):
        while inside < len(known) and known[inside][1] <= hit.start():
            inside += 1
        # A user may be called `pass`: a name within the credentials of a URL is already redacted.
        if hit.start() < done or (inside < len(known) and known[inside][0] <= hit.start()):
            continue
        name = _name_around(text, hit.start(), hit.end(), done)
        if name is None:
            continue
        is_named = True
        span = _assigned(text, *name)
        if span is not None:
            yield span
            done = span[1]
    if is_named:
        # The name and the value may be separate: `--name auth.password --value SECRET`.
        done = 0
        for hit in _VALUE_NAME.finditer(text):
            span = _assigned(text, hit.start(), hit.end()) if hit.start() >= done else None
            if span is not None:
                yield span
                done = span[1]


def _given_to_programs(text: str) -> Iterator[tuple[int, int]]:
    """Yield spans of secrets in command lines: `sshpass -p SECRET`, `curl -u user:SECRET`."""
    programs = list(_PROGRAM.finditer(text))
    done = 0
    for number, program in enumerate(programs):
        if program.start() < done:
            continue  # within a secret: searched again, it would cost more than linear time
        further = number + 1
        last = program.end() + MAX_COMMAND_CHARS
        end = min(programs[further].start() if further < len(programs) else len(text), last)
        option = _options_of(program[1]).search(text, program.end(), end)
        while option is not None:
            span = _option_value(text, option)
            if span is not None:
                yield span
                done = span[1]
            at = option.end() if span is None else max(span[1], option.end())
            while further < len(programs) and programs[further].start() < at:
                further += 1  # a secret that is called like a program does not end the command
            end = min(programs[further].start() if further < len(programs) else len(text), max(last, at))
            # What follows the secret of sshpass are the options of another program.
            is_last = program[1] == "sshpass" or at >= end
            option = None if is_last else _options_of(program[1]).search(text, at, end)


def _options_of(program: str) -> re.Pattern[str]:
    return _PROGRAM_OPTIONS["mysql" if program.startswith("mysql") else program]


def _option_value(text: str, option: re.Match[str]) -> tuple[int, int] | None:
    if text[option.end() : option.end() + 1] in {"", " ", "\t", "\n", "\r", "'", '"', "\\", "=", ","}:
        is_opened = option.start() > 0 and text[option.start() - 1] in "'\""
        if is_opened or text[option.end() : option.end() + 1] not in {"'", '"'}:
            return _assigned(text, option.start(), option.end())
    return _value_span(text, option.end(), option[0], is_quoted=False)


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    """Replace the spans, which may overlap."""
    out: list[str] = []
    done = 0
    for start, end in sorted(spans):
        if start >= done:
            out += (text[done:start], REDACTED)
        done = max(done, end)
    return "".join(out) + text[done:]


def safe_excerpt(data: bytes) -> str:
    """Return the beginning of a line for people: redacted, printable, at most 200 characters.

    Control and format characters (terminal escapes, line separators, bidirectional overrides)
    become U+FFFD.
    """
    text = data[:MAX_EXCERPT_BYTES].decode("utf-8", "replace")
    # This JSON was not decoded, so an escaped letter would hide the name of a secret.
    text = _ESCAPED_LETTER.sub(lambda found: chr(int(found[1], 16)), text)
    text = redact_text(text)
    # The line, or the part used here, may end before the `@` that marks a credential.
    text = _URL_CUT.sub(f"://{REDACTED}", text)
    safe = "".join(c if _is_printable(c) else "\ufffd" for c in text[: MAX_EXCERPT_CHARS + 1])
    return safe if len(safe) <= MAX_EXCERPT_CHARS else safe[: MAX_EXCERPT_CHARS - 1] + "…"


def may_hold_secret(line: str) -> bool:
    """Return whether a raw line could have a secret; False means that redaction changes nothing.

    This is a fast test, made for each line. A JSON escape can hide an ASCII character, so it counts
    as a hit.
    """
    low = line.lower()
    return (
        "pass" in low
        or "auth" in low
        or "://" in low
        or "token" in low
        or "secret" in low
        or "pw" in low
        or "curl" in low
        or "mysql" in low
        or "credential" in low
        or "key" in low
        or ("\\" in low and (_ESCAPED_ASCII.search(low) is not None or may_hold_url(low)))
        or ("%" in low and may_hold_url(low))
        or may_hold_incomplete(low)
    )


@lru_cache(maxsize=4096)
def is_secret(key: str) -> bool:
    """Return whether a key names a secret, in any case.

    Its words decide, split at `_`, `-`, `.` and by camel case.
    """
    if key == "sshpass":
        return False  # the program, whose messages begin with its name; its variable is SSHPASS
    words = [word.lower() for word in _WORD.findall(key[: 8 * MAX_KEY_CHARS])]
    for word in words:
        if word in _PLAIN:
            continue
        if word in _WHOLE or word.endswith(_ENDS) or any(part in word for part in _PARTS):
            return True
    pairs = [first + second for first, second in pairwise(words)]
    return any(pair in _KEYS or pair == "passphrase" for pair in pairs)


def _walk(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, (dict, list)) and depth >= MAX_DEPTH:
        return TOO_DEEP
    if isinstance(value, dict):
        names_secret = not _VALUE_KEYS.isdisjoint(value) and any(
            type(item) is str and _is_secret_name(item) for item in value.values()
        )
        return {
            redact_text(str(key)): REDACTED
            if is_secret(str(key)[: 8 * MAX_KEY_CHARS]) or (names_secret and key in _VALUE_KEYS)
            else _walk(item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list):
        if any(type(item) is str and (_is_secret_name(item) or _is_program(item)) for item in value):
            return list(_arguments(value, depth))
        return [_walk(item, depth + 1) for item in value]
    return value


def _arguments(items: list[Any], depth: int) -> Iterator[Any]:
    """Redact a list that names a secret: command-line arguments, or a name and its value."""
    is_value = False
    program = ""
    for at, item in enumerate(items):
        if is_value:
            is_value = False
            yield REDACTED
            continue
        text = item if type(item) is str else ""
        if program and not is_value and (found := _options_of(program).match(text)) is not None:
            is_value = found.end() == len(text)
            yield text if is_value else f"{found[0]}{REDACTED}"
            program = "" if program == "sshpass" else program
            continue
        if _is_program(text):
            program = text.rpartition("/")[2]
        option, equals, _ = text[: 8 * MAX_KEY_CHARS].partition("=")
        is_name = _VALUE_OPTION.fullmatch(option) is not None or (
            option.startswith("-") and is_secret(option)
        )
        if is_name and equals:
            yield f"{option}={REDACTED}"
            continue
        is_value = is_name or (at == 0 and len(items) == 2 and is_secret(option))
        yield _walk(item, depth + 1)


def _is_program(text: str) -> bool:
    """Return whether an argument is a program that takes a secret as an option, with its path."""
    return len(text) <= MAX_KEY_CHARS and _PROGRAM.fullmatch(text.rpartition("/")[2]) is not None


def _is_secret_name(text: str) -> bool:
    """Return whether a string is the name of a secret, and not a sentence."""
    return (
        len(text) <= 4 * MAX_KEY_CHARS
        and _SECRET_NAME.fullmatch(text) is not None
        and any(is_secret(part) for part in text.split("=", 1))
    )


def _redact_schema_error(text: str) -> str:
    """Redact a jsonschema error about a secret, which is in its first and its last lines."""
    for found in _INSTANCE.finditer(text):
        if any(is_secret(step) for step in re.findall(r"[^\[\]'\"]+", found[1])):
            rule = text.find("\n\nFailed validating", 0, found.start())
            # A path that is not plain may contain a part of the secret.
            way = found[0] if _PLAIN_WAY.fullmatch(found[1]) else f"On instance[{REDACTED}]:\n"
            return REDACTED + text[found.start() if rule < 0 else rule : found.start()] + way + REDACTED
    return text


def _name_around(text: str, start: int, end: int, floor: int) -> tuple[int, int] | None:
    """Return the span of the name around a stem, or None if it is not the name of a secret."""
    before = text[max(floor, start - MAX_KEY_CHARS) : start]
    left = start - len(before) + len(before.rstrip(_NAME_CHARS))
    after = text[end : end + MAX_KEY_CHARS]
    right = end + len(after) - len(after.lstrip(_NAME_CHARS))
    return (left, right) if is_secret(text[left:right]) else None


def _assigned(text: str, left: int, right: int) -> tuple[int, int] | None:
    """Return the span of the value that is assigned to the name, or None."""
    size = len(text)
    key = text[left:right]
    at = right
    while at < min(size, right + MAX_BLANKS) and text[at] in "'\"\\":
        at += 1  # in a list that is quoted within a list, names have several quotes
    is_quoted = "'" in text[right:at] or '"' in text[right:at]
    at = at if is_quoted else right
    separator = _skip_blanks(text, at)
    if is_quoted and text[separator : separator + 1] == "]":
        separator = _skip_blanks(text, separator + 1)
    sign = text[separator : separator + 1]
    if sign in {":", "="}:
        value = separator + 1
        while text[value : value + 1] in {"=", ">"}:
            value += 1
    elif sign == "," and is_quoted and (key.startswith("-") or _opens_a_pair(text, left)):
        value = separator + 1  # an argument list: ['--password', 'x'], or a pair: ('password', 'x')
    elif sign == ">" and text[left - 1 : left] == "<":
        close = text.find("<", separator + 1)
        return separator + 1, size if close < 0 else close
    elif separator > at and key.startswith("-"):
        value = separator  # an option of a command line
    else:
        return None
    return _value_span(text, _skip_blanks(text, value), key, is_quoted=is_quoted)


def _opens_a_pair(text: str, left: int) -> bool:
    return text[max(left - 3, 0) : left].strip("uUbB\\'\"")[-1:] in {"(", "["}


def _value_span(text: str, start: int, key: str, *, is_quoted: bool) -> tuple[int, int] | None:
    size = len(text)
    if start >= size:
        return None
    opening = _PREFIXED.match(text, start)
    if opening is not None:
        return opening.end(), _string_end(text, opening)
    if text[start] in "[{(":
        return start, _structure_end(text, start)
    bare = (_BARE_AFTER_QUOTED_NAME if is_quoted else _BARE).match(text, start)
    if bare is None:
        return None
    if not is_quoted and "authorization" in key.lower():
        line_end = text.find("\n", start)
        return start, size if line_end < 0 else line_end
    if _SCHEME.match(bare[0]):
        rest = _BARE.match(text, _skip_blanks(text, bare.end()))
        return start, bare.end() if rest is None else rest.end()
    return start, bare.end()


def _string_end(text: str, opening: re.Match[str]) -> int:
    """Return the end of a quoted value; a pretty-printed string continues in further quotes."""
    while True:
        depth = len(opening[1])
        close = _closing_quote(text, opening.end(), opening[2], depth)
        if close < 0:
            return len(text)
        further = _PREFIXED.match(text, _skip_blanks(text, close + depth + 1))
        if further is None or len(further[1]) != depth:
            return close
        opening = further


def _structure_end(text: str, start: int) -> int:
    depth = 0
    at = start
    while (found := _STRUCTURE.search(text, at)) is not None:
        sign = found[0]
        at = found.end()
        if sign in "[{(":
            depth += 1
        elif sign in "]})":
            depth -= 1
            if depth == 0:
                return at
        else:
            slashes = _slashes_before(text, found.start(), start)
            close = _closing_quote(text, at, sign, slashes)
            if close < 0:
                break
            at = close + slashes + 1
    return len(text)


def _closing_quote(text: str, start: int, quote: str, depth: int) -> int:
    """Return the index of the closing quote (of the backslashes before it), or -1.

    It has as many backslashes as the opening quote. A quote with more or fewer may be content, so
    it does not end the value.
    """
    at = text.find(quote, start)
    while at >= 0:
        if _slashes_before(text, at, start) == depth:
            return at - depth
        at = text.find(quote, at + 1)
    return -1


def _slashes_before(text: str, at: int, floor: int) -> int:
    first = at
    while first > floor and text[first - 1] == "\\":
        first -= 1
    return at - first


def _skip_blanks(text: str, at: int) -> int:
    end = min(len(text), at + MAX_BLANKS)
    while at < end and text[at] in " \t\r\n":
        at += 1
    return at


def _is_printable(char: str) -> bool:
    return char < "\x7f" and char >= " " if char < "\xa0" else unicodedata.category(char) not in _UNPRINTABLE


_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
