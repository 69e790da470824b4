"""Basic authentication from a file of users and password hashes.

A line of the file is `user:scrypt$<n>$<r>$<p>$<salt>$<key>`, salt and key in hex; `hash_password` makes the
part after the colon. Hashing is slow on purpose, and a scrape comes every few seconds: the last credentials
that were right are remembered as a keyed digest, and one hash at a time is computed, so that guessing
passwords cannot take all of a hypervisor's cores.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import threading
from pathlib import Path
from typing import NamedTuple

SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**14, 8, 1
"""16 MiB and some 50 ms a hash."""

SCRYPT_BYTES_MAX = 128 * 1024 * 1024
"""A file that asks for more is refused; scrypt needs 128 * n * r bytes."""

KEY_BYTES = 32
SALT_BYTES = 16
FILE_BYTES_MAX = 64 * 1024


class AuthError(Exception):
    """The file cannot be used; the message names it, the line, and the remedy."""


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
    """Return what stands after `user:` in the file for this password; a new salt each time."""
    salt = os.urandom(SALT_BYTES)
    key = _derive(password, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P, KEY_BYTES)
    return f"scrypt${SCRYPT_N}${SCRYPT_R}${SCRYPT_P}${salt.hex()}${key.hex()}"


class BasicAuth:
    """Tells whether an Authorization header names a user of the file with the right password."""

    def __init__(self, hashes: dict[str, _Hash]) -> None:
        self._hashes = hashes
        self._secret = os.urandom(KEY_BYTES)
        self._accepted = b""
        self._turn = threading.Lock()

    @classmethod
    def load(cls, path: Path) -> BasicAuth:
        """Read the file; blank lines and lines that begin with `#` are skipped. Raises AuthError."""
        try:
            with path.open("rb") as file:
                text = file.read(FILE_BYTES_MAX).decode()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise AuthError(
                f"cannot read {path}: {reason}; set `auth_file` to a file of user:hash"
            ) from error
        hashes: dict[str, _Hash] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip() and not line.startswith("#"):
                user, _, hashed = line.strip().partition(":")
                try:
                    hashes[user] = _parse(hashed)
                except ValueError:
                    raise AuthError(
                        f"{path}:{number} is not user:hash; make the hash with `wok-exporter hash-password`"
                    ) from None
        if not hashes:
            raise AuthError(f"{path} names no user; add a line user:hash")
        return cls(hashes)

    def accepts(self, authorization: str) -> bool:
        """Return whether the header's value is right; the answer takes as long for an unknown user."""
        scheme, _, encoded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            credentials = base64.b64decode(encoded.strip(), validate=True)
            user, _, password = credentials.decode().partition(":")
        except (binascii.Error, ValueError):
            return False
        digest = hmac.digest(self._secret, credentials, "sha256")
        if hmac.compare_digest(digest, self._accepted):
            return True
        known = self._hashes.get(user)
        with self._turn:
            is_right = (known or next(iter(self._hashes.values()))).matches(password)
        if known is None or not is_right:
            return False
        self._accepted = digest
        return True


def _parse(hashed: str) -> _Hash:
    name, n, r, p, salt, key = hashed.split("$")
    parsed = _Hash(int(n), int(r), int(p), bytes.fromhex(salt), bytes.fromhex(key))
    if (
        name != "scrypt"
        or parsed.n < 2
        or parsed.n & (parsed.n - 1)
        or parsed.r < 1
        or not 1 <= parsed.p <= 16
        or 128 * parsed.n * parsed.r > SCRYPT_BYTES_MAX
        or not KEY_BYTES // 2 <= len(parsed.key) <= 2 * KEY_BYTES
    ):
        raise ValueError(name)
    return parsed
