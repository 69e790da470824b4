"""The English of a record: what happened, why it failed, and who did it as far as the settings allow.

Which sentence: the dialects of 2016 carry it in the line, the later ones a code and parameters, for which the
message tables of the host's Wok have the words. Of a sentence of many lines the record has only the first;
where the tables render a sentence that begins the same way, theirs is the whole one.

The reason of a failure stands inside the sentence in the RFC's dialect, in parentheses and behind its code.
Everywhere else it is a code with parameters of its own.

People: with privacy "hash" a user is told from others by `user.hash` (the semantic conventions' name for it),
the first 16 hex digits of a SHA-256 over the instance and the name, and `user.name` is left out. This is a
pseudonym and no more: who knows the instance can try names. An address is left out under "hash" as well as
under "drop", because all IPv4 addresses are tried in a moment. In sentences the same values are replaced.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

from exporter import otlp_encoding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.records import Record

Privacy = Literal["plain", "hash", "drop"]

_HASH_HEX_DIGITS: Final = 16
_REMOVED: Final = "[removed]"
_ERROR_IN_TEXT: Final = re.compile(r"\([A-Z][A-Z0-9]{3,40}E\b")
_USER_PARAMS: Final = ("username", "user")  # a log-in's own name, a migration's remote one


class MessageTables(Protocol):
    """Wok's message tables: what a message code and its parameters say in English."""

    def render(self, code: str, params: Mapping[str, Any]) -> str:
        """Return the sentence, or the code followed by the parameters where no table has the code."""


class Texts(NamedTuple):
    """The sentences of one record: what it says, the reason of a failure included, and that reason alone."""

    message: str
    error: str


class Sentences:
    """Finds the sentences of records; the privacy settings have been applied to what it returns."""

    def __init__(self, messages: MessageTables, people: People) -> None:
        self._messages = messages
        self._people = people
        self._is_plain = people.privacy == "plain"
        # A record's span, log record and row are made one after the other.
        self._latest: tuple[Record, Texts] | None = None

    def of(self, record: Record) -> Texts:
        """Return the sentences of a record; `error` is without its code, and empty without a reason."""
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
        # The RFC's dialect carries the reason inside the sentence, in parentheses and behind its code. There
        # and nowhere else: a guest's name may look like a code too, and the code there may differ from detCode.
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
        """Return `said` (the first line of a sentence), with its further lines where the tables know them."""
        if not said:
            return self._messages.render(code, params) if code else ""
        if code:
            for value in params.values():
                if isinstance(value, str) and "\n" in value:
                    rendered = self._messages.render(code, params)
                    return rendered if rendered.startswith(said) else said
        return said


class People:
    """What may be told of users and addresses (see the head of this module)."""

    def __init__(self, instance: str, privacy: Privacy) -> None:
        self.privacy = privacy
        self.user_key = "user.hash" if privacy == "hash" else "user.name"
        self._instance = otlp_encoding.utf8(instance)

    def user(self, name: str) -> str:
        """Return what stands for a user: the name, its hash, or nothing."""
        if self.privacy == "plain" or not name:
            return name
        if self.privacy == "drop":
            return ""
        framed = b"%d:%b%b" % (len(self._instance), self._instance, otlp_encoding.utf8(name))
        return sha256(framed).hexdigest()[:_HASH_HEX_DIGITS]

    def address(self, address: str) -> str:
        """Return what may be told of an address: all or nothing."""
        return address if self.privacy == "plain" else ""

    def in_params(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a message's parameters with people replaced, for it to be rendered."""
        told = {key: self._stand_in(params[key]) for key in _USER_PARAMS if params.get(key)}
        return {**params, **told} if told else params

    def in_text(self, record: Record, text: str) -> str:
        """Return a sentence of the record's line with people replaced.

        The names are those the record has elsewhere: its user and address, and parameters that name a user.
        """
        if record.dialect == "text" and record.app == "wok":
            # Log-ins, in any language, and no parameter tells the name: all between the outer quotes, or
            # behind the first, where a newline in the name has cut the sentence.
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
