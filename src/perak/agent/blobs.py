"""Work folders down, outputs up, over HTTP with the node's signature; blocking, for use in a thread.

``http.client`` instead of the client's httpx: the agent has two plain requests to make, and httpx would take
a fifth of its memory.
"""

from __future__ import annotations

import hashlib
import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from perak.agent.fetch.download import range_header, web_chunks
from perak.agent.identity import ANSWER_BYTES_MAX, Identity, connection, problem
from perak.domain.errors import InvalidInput, NotFound, TooLarge, Unavailable

CHUNK_BYTES = 256 * 1024
SECRETS_ANSWER_BYTES_MAX = 8 * 2**20
"""Some fifty secrets of the largest size, in base64 twice."""
_WORTH_ANOTHER_TRY = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Blobs:
    """The exchange's blobs as this node may see them: those of its own leases."""

    identity: Identity
    timeout_seconds: float

    def fetch_workdir(self, lease: str, digest: str, target: Path, *, limit_bytes: int) -> None:
        """Write the work folder's archive to `target`, checked against `digest` (``sha256:<hex>``).

        Raises Unavailable after a cut, or when what came is not what was asked for: try again. Raises
        NotFound or InvalidInput when the exchange refuses, TooLarge beyond `limit_bytes`.
        """
        link, path = self._connect(f"/v1/node/leases/{lease}/workdir")
        hashed, size = hashlib.sha256(), 0
        try:
            link.request("GET", path, headers=self._headers("GET", path))
            response = link.getresponse()
            _check(response)
            with target.open("wb") as file:
                while chunk := response.read(CHUNK_BYTES):
                    size += len(chunk)
                    if size > limit_bytes:
                        raise TooLarge(f"the work folder is larger than {limit_bytes:,} bytes")
                    hashed.update(chunk)
                    file.write(chunk)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the work folder could not be fetched: {error!r}") from None
        finally:
            link.close()
        if f"sha256:{hashed.hexdigest()}" != digest:
            raise Unavailable("the work folder arrived damaged: its digest does not fit")

    @contextmanager
    def open_input(self, lease: str, digest: str, offset: int) -> Iterator[tuple[Iterator[bytes], int]]:
        """Outputs of an earlier job that the lease's job names, from `offset` on: a download's source."""
        link, path = self._connect(f"/v1/node/leases/{lease}/inputs/{digest}")
        try:
            try:
                link.request("GET", path, headers=self._headers("GET", path) | range_header(offset))
                response = link.getresponse()
                _check(response)
            except (OSError, http.client.HTTPException) as error:
                raise Unavailable(f"the exchange does not answer: {error!r}") from None
            yield web_chunks(response, offset)
        finally:
            link.close()

    def fetch_secrets(self, lease: str) -> dict[str, bytes]:
        """The secrets that the lease's job names, opened; kept nowhere. Errors as of `fetch_workdir`."""
        link, path = self._connect(f"/v1/node/leases/{lease}/secrets")
        try:
            link.request("GET", path, headers=self._headers("GET", path))
            response = link.getresponse()
            _check(response)
            answer = response.read(SECRETS_ANSWER_BYTES_MAX + 1)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the secrets could not be fetched: {error!r}") from None
        finally:
            link.close()
        if len(answer) > SECRETS_ANSWER_BYTES_MAX:
            raise TooLarge(f"the secrets are larger than {SECRETS_ANSWER_BYTES_MAX:,} bytes")
        return self.identity.open_secrets(answer, lease=lease)

    def send_outputs(self, lease: str, digest: str, source: Path) -> None:
        """Hand over the outputs' archive. Errors as of `fetch_workdir`; a repeat is harmless."""
        link, path = self._connect(f"/v1/node/leases/{lease}/outputs/{digest}")
        headers = self._headers("PUT", path) | {
            "Content-Length": str(source.stat().st_size),
            "Content-Type": "application/octet-stream",
        }
        try:
            with source.open("rb") as file:
                link.request("PUT", path, file, headers)
            _check(link.getresponse())
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the outputs could not be sent: {error!r}") from None
        finally:
            link.close()

    def _connect(self, path: str) -> tuple[http.client.HTTPConnection, str]:
        link, prefix = connection(
            self.identity.url, tls=self.identity.tls, timeout_seconds=self.timeout_seconds
        )
        return link, prefix + path

    def _headers(self, method: str, path: str) -> dict[str, str]:
        return {"Authorization": self.identity.sign_request(method, path, at=int(time.time() * 1000))}


def _check(response: http.client.HTTPResponse) -> None:
    if response.status < 300:
        return
    why = problem(response.read(ANSWER_BYTES_MAX), response.status)
    if response.status >= 500 or response.status in _WORTH_ANOTHER_TRY:
        raise Unavailable(f"the exchange can't answer now: {why}")
    if response.status == 404:
        raise NotFound(f"the exchange does not have it: {why}")
    raise InvalidInput(f"the exchange refused: {why}")
