"""Basic authentication from a file of users and password hashes.

A line of the file is `user:scrypt$<n>$<r>$<p>$<salt>$<key>`, with salt and key in hex.
`hash_password` makes the part after the colon. A hash is slow on purpose, and a scrape comes every
few seconds, so the last right credentials of each user are remembered as a keyed digest, and so are
wrong credentials. A hash is computed only for credentials that are seen for the first time; the
server does that in one thread of its own.

The time of an answer must not tell which users exist: the hash of an unknown user is as slow as
that of a known one, also where the users of the file have hashes of different cost.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import stat
import threading
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**14, 8, 1
"""16 MiB and some 50 ms a hash."""

SCRYPT_BYTES_MAX = 128 * 1024 * 1024
"""scrypt needs 128 * n * r bytes; a hash that needs more is rejected."""

SCRYPT_WORK_MAX = 2 * SCRYPT_BYTES_MAX
"""128 * n * r * p: a hash that takes about a second or longer is rejected."""

KEY_BYTES = 32
SALT_BYTES = 16
FILE_BYTES_MAX = 64 * 1024
WRONG_REMEMBERED = 1000
"""Wrong credentials that are known without computing a hash: a scraper with an old password repeats
itself.
"""

_HASH = re.compile(
    r"scrypt\$([0-9]{1,9})\$([0-9]{1,6})\$([0-9]{1,2})\$((?:[0-9a-f]{2})+)\$((?:[0-9a-f]{2})*)",
    re.ASCII | re.IGNORECASE,
)


class AuthError(Exception):
    """The file cannot be used; the message names the file, the line, and what to do."""


class _Hash(NamedTuple):
    n: int
    r: int
    p: int
    salt: bytes
    key: bytes

    def matches(self, password: str) -> bool:
        key = _derive(password, self.salt, self.n, self.r, self.p, len(self.key))
        return hmac.compare_digest(key, self.key)


def _derive(password: str, salt: bytes, n: int, r: int, p: int, size: int) -> bytes:
    return hashlib.scrypt(
        password.encode(), salt=salt, n=n, r=r, p=p, maxmem=SCRYPT_BYTES_MAX + 2**20, dklen=size
    )


def hash_password(password: str) -> str:
    """Return the text after `user:` for this password, with a new salt each time."""
    salt = os.urandom(SALT_BYTES)
    key = _derive(password, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P, KEY_BYTES)
    return f"scrypt${SCRYPT_N}${SCRYPT_R}${SCRYPT_P}${salt.hex()}${key.hex()}"


class BasicAuth:
    """Checks Authorization headers against the users of the file; any thread may call it."""

    def __init__(self, hashes: dict[str, _Hash]) -> None:
        self._hashes = hashes
        self._secret = os.urandom(KEY_BYTES)
        self._right: dict[str, bytes] = {}
        self._wrong: OrderedDict[bytes, None] = OrderedDict()
        self._turn = threading.Lock()
        # An unknown name gets the cost of one of these, always the same one.
        self._decoys = list(hashes.values())

    @classmethod
    def load(cls, path: Path) -> BasicAuth:
        """Read the file; blank lines and lines that begin with `#` are skipped.
        Raises AuthError.
        """
        text = _text(path)
        hashes: dict[str, _Hash] = {}
        computed: set[tuple[int, int, int, int]] = set()
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            user, _, hashed = line.strip().partition(":")
            try:
                parsed = _parse(user, hashed)
                cost = (parsed.n, parsed.r, parsed.p, len(parsed.key))
                if cost not in computed:
                    # Which parameters scrypt can compute is for scrypt to say.
                    parsed.matches("")
                    computed.add(cost)
            except (ValueError, MemoryError):
                raise AuthError(
                    f"{path}:{number} is not user:hash; make the hash with `wok-exporter hash-password`"
                ) from None
            if user in hashes:
                raise AuthError(f"{path}:{number} has a user that an earlier line has; remove one of them")
            hashes[user] = parsed
        if not hashes:
            raise AuthError(f"{path} has no user; add a line user:hash")
        return cls(hashes)

    def remembered(self, authorization: str) -> bool | None:
        """Return whether the header is right if that is known without a hash, else None."""
        credentials = _credentials(authorization)
        return False if credentials is None else self._remembered(*credentials)

    def accepts(self, authorization: str) -> bool:
        """Return whether the header is right; computes a hash unless the answer is remembered."""
        credentials = _credentials(authorization)
        if credentials is None:
            return False
        known = self._remembered(*credentials)
        return self._compute(*credentials) if known is None else known

    def _remembered(self, user: str, password: str) -> bool | None:
        digest = self._digest(user, password)
        if hmac.compare_digest(digest, self._right.get(user, b"")):
            return True
        return False if digest in self._wrong else None

    def _compute(self, user: str, password: str) -> bool:
        digest = self._digest(user, password)
        chosen = int.from_bytes(self._digest("", user)[:8], "big") % len(self._decoys)
        is_right = self._hashes.get(user, self._decoys[chosen]).matches(password) and user in self._hashes
        with self._turn:
            if is_right:
                self._right[user] = digest
            else:
                self._wrong[digest] = None
                if len(self._wrong) > WRONG_REMEMBERED:
                    self._wrong.popitem(last=False)
        return is_right

    def _digest(self, user: str, password: str) -> bytes:
        # A user has no colon in it, so that this names one pair alone.
        return hmac.digest(self._secret, f"{user}:{password}".encode(), "sha256")


def _text(path: Path) -> str:
    remedy = "set `auth_file` to a file of user:hash"
    try:
        # Without O_NONBLOCK, opening a FIFO waits for its writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise AuthError(f"cannot read {path}: it is not a regular file; {remedy}")
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise AuthError(f"cannot read {path}: {error.strerror}; {remedy}") from error
    if len(data) > FILE_BYTES_MAX:
        raise AuthError(f"cannot read {path}: it is larger than {FILE_BYTES_MAX // 1024} KiB; {remedy}")
    try:
        # Windows editors put a byte-order mark in front.
        return data.decode("utf-8-sig")
    except ValueError as error:
        raise AuthError(f"cannot read {path}: it is not UTF-8; {remedy}") from error


def _credentials(authorization: str) -> tuple[str, str] | None:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon else None


def _parse(user: str, hashed: str) -> _Hash:
    found = _HASH.fullmatch(hashed)
    if found is None or not user or not user.isprintable():
        raise ValueError("no user, or no hash")
    n, r, p = (int(found[at]) for at in (1, 2, 3))
    parsed = _Hash(n, r, p, bytes.fromhex(found[4]), bytes.fromhex(found[5]))
    if (
        parsed.n < 2
        or parsed.n & (parsed.n - 1)
        or parsed.r < 1
        or not 1 <= parsed.p <= 16
        or 128 * parsed.n * parsed.r > SCRYPT_BYTES_MAX
        or 128 * parsed.n * parsed.r * parsed.p > SCRYPT_WORK_MAX
        or not KEY_BYTES // 2 <= len(parsed.key) <= 2 * KEY_BYTES
    ):
        raise ValueError("impossible, or too slow")
    return parsed
