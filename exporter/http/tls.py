"""TLS for the HTTP server: a certificate and key that are read again when their files change."""

from __future__ import annotations

import logging
import ssl
import stat
from pathlib import Path
from typing import NamedTuple

from exporter.http.errors import ServerError

_log = logging.getLogger(__name__)


class Tls(NamedTuple):
    """Paths of a certificate chain and its key, in PEM."""

    certificate: Path
    key: Path


class Certificate:
    """A TLS context that follows its files. Certificates are renewed every few weeks.

    Raises ServerError when the files cannot be used at the start. Later, a file that cannot be used
    is logged and the previous certificate stays in use.
    """

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        try:
            self._read_at = self._changed_at()
            self._context = self._load()
        except (OSError, ValueError) as error:
            raise ServerError(
                f"cannot read the certificate {tls.certificate} and its key {tls.key}: {error};"
                " set `tls_certificate` and `tls_key` to PEM files that belong together"
            ) from error

    def context(self) -> ssl.SSLContext:
        """Return the context of the newest certificate that can be used."""
        try:
            changed_at = self._changed_at()
            if changed_at != self._read_at:
                self._read_at = changed_at
                self._context = self._load()
        except (OSError, ValueError):
            _log.warning("cannot use the new certificate in %s; keeping the old one", self._tls.certificate)
        return self._context

    def _changed_at(self) -> tuple[int, int]:
        found = [path.stat() for path in self._tls]
        if not all(stat.S_ISREG(each.st_mode) for each in found):
            # Opening a FIFO would wait for its writer for ever.
            raise ValueError("not a regular file")
        return found[0].st_mtime_ns, found[1].st_mtime_ns

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # OpenSSL prompts for the password of an encrypted key unless it is given one.
        context.load_cert_chain(self._tls.certificate, self._tls.key, password=lambda: "")
        return context
