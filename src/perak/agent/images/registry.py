"""One repository of a registry, as the OCI distribution specification 1.1 has it: manifests and blobs."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlencode

from perak.agent.fetch.download import range_header, web_chunks
from perak.agent.fetch.reach import NotReachable, Reach
from perak.agent.fetch.web import Refusal, get, read
from perak.wire.images import ACCEPT, MANIFEST_BYTES_MAX, Challenge, ImageError, Reference

TOKEN_BYTES_MAX = 64 * 1024


class Registry:
    """`credentials`: ``user:password``, or None to ask as nobody. For one thread."""

    def __init__(self, reference: Reference, *, reach: Reach, credentials: str | None) -> None:
        self.reference = reference
        self._reach = reach
        self._credentials = credentials
        self._authorization: str | None = None
        self._base = _base(reference.host, reach)

    @property
    def is_public(self) -> bool:
        """Whether what was read so far was given to nobody in particular."""
        return self._credentials is None

    def manifest(self, digest: str) -> bytes:
        """A manifest or index, checked against its digest. Raises ImageError, Refusal, Unavailable."""
        path = f"/v2/{self.reference.repository}/manifests/{digest}"
        return self._checked(path, digest, {"Accept": ACCEPT})

    def small_blob(self, digest: str) -> bytes:
        """A blob that fits memory, checked against its digest."""
        return self._checked(self.reference.blob_path(digest), digest, {})

    @contextmanager
    def open_blob(self, digest: str, offset: int) -> Iterator[tuple[Iterator[bytes], int]]:
        """A `Source` of a layer."""
        with self._get(self.reference.blob_path(digest), range_header(offset)) as response:
            yield web_chunks(response, offset)

    def _checked(self, path: str, digest: str, headers: dict[str, str]) -> bytes:
        with self._get(path, headers) as response:
            data = read(response, limit_bytes=MANIFEST_BYTES_MAX + 1)
        if len(data) > MANIFEST_BYTES_MAX:
            raise ImageError(f"its description is larger than {MANIFEST_BYTES_MAX:,} bytes")
        found = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if found != digest:
            raise ImageError(f"the registry sent {found} where {digest} was asked for")
        return data

    @contextmanager
    def _get(self, path: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
        """GET, after showing who we are where the registry asks for it (again, as tokens live minutes)."""
        try:
            opened = get(self._base + path, reach=self._reach, headers=headers | self._own())
            response = opened.__enter__()
        except Refusal as error:
            if error.status != 401 or error.challenge is None:
                raise self._explained(error) from None
            self._authenticate(Challenge.parse(error.challenge))
            try:
                opened = get(self._base + path, reach=self._reach, headers=headers | self._own())
                response = opened.__enter__()
            except Refusal as again:
                raise self._explained(again) from None
        try:
            yield response
        finally:
            opened.__exit__(None, None, None)

    def _own(self) -> dict[str, str]:
        return {"Authorization": self._authorization} if self._authorization else {}

    def _authenticate(self, challenge: Challenge) -> None:
        basic = None
        if self._credentials is not None:
            basic = f"Basic {base64.b64encode(self._credentials.encode()).decode()}"
        if challenge.scheme == "basic":
            self._authorization = basic
            return
        realm = challenge.parameters.get("realm", "")
        if self._base.startswith("https:") and not realm.startswith("https:"):
            raise NotReachable(
                f"{self.reference.registry} wants its token fetched without TLS, from {realm[:80]!r}"
            )
        wanted = {"service": challenge.parameters.get("service", "")}
        wanted["scope"] = f"repository:{self.reference.repository}:pull"
        try:
            headers = {"Authorization": basic} if basic else {}
            with get(f"{realm}?{urlencode(wanted)}", reach=self._reach, headers=headers) as response:
                answer = json.loads(read(response, limit_bytes=TOKEN_BYTES_MAX))
            token = answer.get("token") or answer["access_token"]
        except Refusal as error:
            raise self._explained(error) from None
        except (ValueError, KeyError, AttributeError):
            raise ImageError(f"{self.reference.registry} gave no token that can be read") from None
        self._authorization = f"Bearer {token}"

    def _explained(self, error: Refusal) -> Refusal:
        if error.status in (401, 403):
            what = (
                "and gave none: name a secret with user:password under `image: {credentials: ...}`"
                if self._credentials is None
                else "and does not take those that were given"
            )
            return Refusal(
                f"{self.reference.source} asks for credentials, {what} ({error.detail})", status=error.status
            )
        if error.status == 404:
            return Refusal(f"{self.reference.source} does not have it ({error.detail})", status=404)
        return error


def _base(host: str, reach: Reach) -> str:
    """A registry of the provider's own network may do without TLS; every other has it."""
    name, _, port = host.partition(":")
    number = int(port) if port else 443
    if reach.is_private(name, number) and not reach.speaks_tls(name, number):
        return f"http://{host}"
    return f"https://{host}"
