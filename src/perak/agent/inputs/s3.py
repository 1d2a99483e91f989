"""Objects of S3-compatible storage, through obstore."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from perak.agent.fetch.web import Refusal
from perak.domain.errors import DomainError, InvalidInput, Unavailable

if TYPE_CHECKING:
    from obstore.store import S3Store

CHUNK_BYTES = 4 * 2**20
DEFAULT_REGION = "us-east-1"
"""What S3 itself takes where none is said; other stores don't look at it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """`endpoint`: of another store than Amazon's, as the provider sets it; never as a job says."""

    endpoint: str | None = None
    region: str = DEFAULT_REGION
    timeout_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class S3Credentials:
    """Who asks; none: objects that anybody may read."""

    key_id: str
    secret: str


@dataclass(frozen=True, slots=True)
class S3Object:
    """One object as it is now: `etag` changes with its content."""

    store: S3Store
    key: str
    etag: str
    size_bytes: int

    @contextmanager
    def open(self, offset: int) -> Iterator[tuple[Iterator[bytes], int]]:
        """A `Source` of the object, for as long as it stays the same."""
        import obstore

        options: dict[str, Any] = {"if_match": self.etag}
        if offset:
            if offset >= self.size_bytes:
                raise Refusal("nothing is left to fetch", status=416)
            options["range"] = {"offset": offset}
        try:
            found = obstore.get(self.store, self.key, options=options)  # type: ignore[arg-type]
            stream = found.stream(min_chunk_size=CHUNK_BYTES)
        except Exception as error:  # obstore's errors have no common base that it exports
            raise _explained(error) from None

        def chunks() -> Iterator[bytes]:
            left = self.size_bytes - offset
            try:
                for chunk in stream:
                    left -= len(chunk)
                    yield bytes(chunk)
            except Exception as error:
                raise Unavailable(f"the connection was cut: {_first_line(error)}") from None
            if left > 0:
                raise Unavailable(f"the connection was cut {left:,} bytes before the end")

        yield chunks(), offset


def credentials_of(value: bytes) -> S3Credentials:
    """Of a secret that holds ``key id:secret key``. Raises InvalidInput."""
    try:
        key_id, colon, secret = value.decode().strip().partition(":")
    except UnicodeDecodeError:
        key_id = colon = secret = ""
    if not (key_id and colon and secret):
        raise InvalidInput("it holds no key-id:secret-key of a store")
    return S3Credentials(key_id, secret)


def find(url: str, settings: S3Settings, credentials: S3Credentials | None) -> S3Object:
    """The object of ``s3://bucket/key``. Raises Refusal, Unavailable, InvalidInput."""
    import obstore
    from obstore.store import S3Store

    parts = urlsplit(url)
    key = parts.path.lstrip("/")
    if not key or key.endswith("/"):
        raise InvalidInput(f"{url} names a folder; name one object, such as an archive of it")
    options: dict[str, Any] = {"region": settings.region}
    if settings.endpoint is not None:
        options |= {"endpoint": settings.endpoint, "virtual_hosted_style_request": False}
    if credentials is None:
        options["skip_signature"] = True
    else:
        options |= {"access_key_id": credentials.key_id, "secret_access_key": credentials.secret}
    client = {"timeout": f"{settings.timeout_seconds:g}s"}
    if settings.endpoint is not None and settings.endpoint.startswith("http://"):
        client["allow_http"] = True  # type: ignore[assignment]
    try:
        store = S3Store(parts.netloc, client_options=client, retry_config={"max_retries": 0}, **options)  # type: ignore[arg-type]
        meta = obstore.head(store, key)
    except Exception as error:
        raise _explained(error, closed=credentials is not None) from None
    return S3Object(store, key, meta["e_tag"] or "", meta["size"])


def _explained(error: Exception, *, closed: bool = False) -> DomainError:
    """`closed`: it was asked with credentials."""
    from obstore import exceptions

    why = _first_line(error)
    if isinstance(error, FileNotFoundError):
        shown = "does not show it to these credentials" if closed else "does not show it to everybody"
        return Refusal(f"the store has no such object, or {shown}", status=404)
    if isinstance(error, exceptions.PreconditionError):
        return Unavailable("the object changed meanwhile")
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
        shown = "takes other credentials for it" if closed else "does not show it to everybody"
        return Refusal(f"the store {shown} ({why})", status=403)
    return Unavailable(f"the store can't be read: {why}")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]
