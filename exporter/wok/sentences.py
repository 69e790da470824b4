"""Finds the English sentences of a record: what happened, why it failed, and who did it.

The sentence: the formats of 2016 contain it in the line. Later formats contain a code and
parameters, and the message tables of the host's Wok have the sentence. If a sentence has several
lines, the record contains only the first one. If the tables render a sentence with the same
beginning, that one is used.

The reason of a failure: in the RFC format it is part of the sentence, in parentheses after its
code. In all other formats it is a code with its own parameters.

Privacy: with "hash", `user.hash` (a name of the semantic conventions) replaces `user.name`. It is
the first 16 hex digits of a SHA-256 of the instance and the name. This is only a pseudonym: anybody
who knows the instance can try names. With "hash" and "drop" the address is left out, because trying
all IPv4 addresses takes only a moment. The same values are replaced in sentences.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple, Protocol

from exporter import otlp_encoding
from exporter.records import Record

Privacy = Literal["plain", "hash", "drop"]

_HASH_HEX_DIGITS: Final = 16
_REMOVED: Final = "[removed]"
_ERROR_IN_TEXT: Final = re.compile(r"\([A-Z][A-Z0-9]{3,40}E\b")
_USER_PARAMS: Final = ("username", "user")  # of a login, and of the remote host of a migration


class MessageTables(Protocol):
    """Wok's message tables, which render a message code and its parameters in English."""

    def render(self, code: str, params: Mapping[str, Any]) -> str:
        """Return the sentence, or the code and the parameters if no table has the code."""


class Texts(NamedTuple):
    """The sentence of a record, including the reason of a failure, and the reason alone."""

    message: str
    error: str


class Sentences:
    """Finds the sentences of records, and applies the privacy setting to them."""

    def __init__(self, messages: MessageTables, people: People) -> None:
        self._messages = messages
        self._people = people
        self._is_plain = people.privacy == "plain"
        # A record's span, log record and row are made one after the other.
        self._latest: tuple[Record, Texts] | None = None

    def of(self, record: Record) -> Texts:
        """Return the sentences of a record; `error` has no code, and is empty without a reason."""
        latest = self._latest
        if latest is not None and latest[0] is record:
            return latest[1]
        if self._is_plain:
            texts = self._find(record)
        else:
            people = self._people
            told = record._replace(
                params=people.in_params(record.params), error_params=people.in_params(record.error_params)
            )
            texts = Texts(*(people.in_text(record, text) for text in self._find(told)))
        self._latest = (record, texts)
        return texts

    def _find(self, record: Record) -> Texts:
        code = record.error_code
        sentence = record.text
        if not code and not record.failed:
            return Texts(self._whole(sentence, record.code, record.params) or _fallback(record), "")
        # The RFC format has the reason inside the sentence, in parentheses after its code. Other
        # formats do not: there, a guest's name may look like a code. The code may differ from
        # detCode.
        at = -1
        if sentence and record.kind == "finished":
            at = sentence.rfind(f"({code} ") if code else -1
            if at < 0 and (match := _ERROR_IN_TEXT.search(sentence)):
                at = match.start()
        if at >= 0:
            said_code, _, said = sentence[at + 1 :].partition(" ")
            error = self._whole(said.removesuffix(")"), code, record.error_params)
            whole = f"{sentence[:at]}({said_code} {error})" if "\n" in error else sentence
            return Texts(whole, error or said_code.removesuffix(")"))
        error = self._messages.render(code, record.error_params) if code else ""
        sentence = self._whole(sentence, record.code, record.params) or _fallback(record)
        if not error:
            return Texts(sentence, "")
        # Without a table, the rendered text begins with the code already.
        return Texts(
            f"{sentence} ({error})" if error.startswith(code) else f"{sentence} ({code}: {error})", error
        )

    def _whole(self, said: str, code: str, params: Mapping[str, Any]) -> str:
        """Return `said` (the first line of a sentence), with its further lines if the tables have
        them.
        """
        if not said:
            return self._messages.render(code, params) if code else ""
        if code:
            for value in params.values():
                if isinstance(value, str) and "\n" in value:
                    rendered = self._messages.render(code, params)
                    return rendered if rendered.startswith(said) else said
        return said


class People:
    """Applies the privacy setting to users and addresses (see the module's docstring)."""

    def __init__(self, instance: str, privacy: Privacy) -> None:
        self.privacy = privacy
        self.user_key = "user.hash" if privacy == "hash" else "user.name"
        self._instance = otlp_encoding.utf8(instance)

    def user(self, name: str) -> str:
        """Return the name of a user, its hash, or nothing."""
        if self.privacy == "plain" or not name:
            return name
        if self.privacy == "drop":
            return ""
        framed = b"%d:%b%b" % (len(self._instance), self._instance, otlp_encoding.utf8(name))
        return sha256(framed).hexdigest()[:_HASH_HEX_DIGITS]

    def address(self, address: str) -> str:
        """Return the address, or nothing."""
        return address if self.privacy == "plain" else ""

    def in_params(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the parameters of a message with names of users replaced."""
        told = {key: self._stand_in(params[key]) for key in _USER_PARAMS if params.get(key)}
        return {**params, **told} if told else params

    def in_text(self, record: Record, text: str) -> str:
        """Return a sentence of the record with names of users and addresses replaced.

        The names come from the record: its user and address, and parameters that name a user.
        """
        if record.dialect == "text" and record.app == "wok":
            # A login, in any language, without a parameter for the name. Replace the text between
            # the outer quotes. If a newline in the name cut the sentence, replace all after the
            # first quote.
            start, quote, rest = text.partition("'")
            inner, closing, end = rest.rpartition("'") if "'" in rest else (rest, "", "")
            return f"{start}{quote}{self._stand_in(inner)}{closing}{end}" if quote else text
        hidden = {record.address: _REMOVED}
        named = [params.get(key) for params in (record.params, record.error_params) for key in _USER_PARAMS]
        for name in (record.user, *named):
            if isinstance(name, str):
                hidden[name] = hidden[name.partition("\n")[0]] = self._stand_in(name)
        present = sorted(
            (name for name in hidden if name and name in text), key=lambda name: (-len(name), name)
        )
        if not present:
            return text
        pattern = "|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in present)
        return re.sub(pattern, lambda match: hidden[match[0]], text)

    def _stand_in(self, name: object) -> str:
        return (self.user(name) if isinstance(name, str) else "") or _REMOVED


def _fallback(record: Record) -> str:
    return f"{record.method} {record.app}"
