"""The certificate of the HTTPS listener, taken anew without a restart.

One of the exchange's own authority is made again when half of its life is over; one that the operator gave is
read again when its files change, as an ACME client replaces them. Connections that are open keep theirs.
"""

from __future__ import annotations

import asyncio
import ssl
from datetime import datetime

from perak.server import clock
from perak.server.certificates import TlsFiles, tls_files
from perak.server.logging import get_logger
from perak.server.settings import Settings
from perak.wire.identity import Authority

LOOK_SECONDS = 60.0
"""Two looks at two files a minute; a certificate that was replaced is in use within this."""

_log = get_logger(__name__)


class Listener:
    """The certificate that new connections are shown, in `context`, which is the server's."""

    def __init__(self, settings: Settings, authority: Authority, files: TlsFiles) -> None:
        self._settings = settings
        self._authority = authority
        self._files = files
        self._seen = _state(files)

    async def keep(self, context: ssl.SSLContext) -> None:
        """Look now and then, for ever. New files that can't be used are logged, and the old stay in use."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                # Not in a thread: a handshake must not meet a new certificate with the old key.
                if self.look(context, clock.now()):
                    _log.info("the TLS certificate was taken anew", file=str(self._files.certificate))
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                _log.error("the new TLS certificate can't be used; the old one stays", error=str(error))

    def look(self, context: ssl.SSLContext, now: datetime) -> bool:
        """Make or read the certificate again where it is due; whether it was. Raises OSError, ValueError."""
        if self._settings.tls_certificate is None and self._is_half_over(now):
            made = tls_files(self._settings, self._authority, now=now)
            assert made == self._files
        seen = _state(self._files)
        if seen == self._seen:
            return False
        # Half a pair must not get into the context in use: it is tried in another one first.
        for each in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), context):
            each.load_cert_chain(self._files.certificate, self._files.key)
        self._seen = seen
        return True

    def _is_half_over(self, now: datetime) -> bool:
        from cryptography import x509

        leaf = x509.load_pem_x509_certificate(self._files.certificate.read_bytes())
        begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
        return now >= begin + (end - begin) / 2


def _state(files: TlsFiles) -> tuple[tuple[int, int, int], ...]:
    """What changes when a file is replaced or written to."""
    stats = (path.stat() for path in (files.certificate, files.key))
    return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats)
