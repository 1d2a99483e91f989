"""What takes more than one step, written once for both clients.

A flow is a generator that yields the next step and is sent what came of it; the clients only carry steps out,
one by waiting, the other by awaiting. Retries live here too, so both clients repeat alike.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeVar

from perak.client import calls
from perak.client.calls import Call, Reply
from perak.client.errors import DownloadDamaged, ExchangeUnreachable, NotFound, PerakError, error_of
from perak.domain.ids import is_id
from perak.wire import api

if TYPE_CHECKING:
    from perak.wire.archive import Packed
    from perak.wire.encryption import Encrypted
    from perak.wire.jobfile import JobFile

T = TypeVar("T")

RETRIES_MAX = 4
"""Together about 3 s: enough for a restart behind a proxy, short enough to say soon that nobody answers."""
RETRY_FIRST_SECONDS = 0.1
RETRY_FACTOR = 2.5
RETRY_AFTER_SECONDS_MAX = 30.0
"""What an exchange may ask for in Retry-After before we report its refusal instead of waiting."""
RETRIED_STATUSES = frozenset({429, 502, 503, 504})
TRANSFER_TIMEOUT_SECONDS = 120.0
"""Silence of one side during an upload or download; an exchange may be handing the bytes on to a store."""
SPOOL_BYTES = 8 * 2**20
"""Work folders are mostly smaller than this and then never touch the disk."""
HASHED_CHUNK_BYTES = 2**20
SHORT_ID_MIN = 4
SHORT_ID_SEARCHED_JOBS = 1000
"""A short id is looked for among this many of the newest jobs."""

Progress: TypeAlias = Callable[[int, int | None], None]
"""Told (bytes so far, bytes in all, if known) during uploads and downloads."""
JobSource: TypeAlias = "str | Path | JobFile | Mapping[str, Any]"
"""A job file's path, a loaded one, or the same as a mapping."""


@dataclass(frozen=True, slots=True)
class Unreached:
    """No answer came: why, and whether another try may help."""

    reason: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request and read the answer whole. -> Reply | Unreached"""

    call: Call[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """PUT `size_bytes` from the start of `source`. -> Reply | Unreached"""

    path: str
    source: BinaryIO
    size_bytes: int
    progress: Progress | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """GET into `sink` from its start; the reply's content is empty unless it refuses. -> Reply | Unreached"""

    path: str
    sink: BinaryIO
    limit_bytes: int
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait. -> None"""

    seconds: float


@dataclass(frozen=True, slots=True)
class Work:
    """Disk or CPU work that would hold up an event loop. -> what it returns"""

    run: Callable[[], Any]


Step: TypeAlias = Send | Upload | Fetch | Pause | Work
Flow: TypeAlias = Generator[Step, Any, T]


def perform(call: Call[T], *, url: str) -> Flow[T]:
    """Send a request, again if need be: every change carries an idempotency key."""
    reply = yield from _attempt(Send(call), url=url)
    return call.result(reply)


def pages(
    call: Call[api.Page[T]], *, url: str, limit: int | None = None
) -> Generator[Step | list[T], Any, None]:
    """All items of a list, or the first `limit`; yields steps and, between them, lists of items."""
    cursor: str | None = None
    given = 0
    while True:
        page = yield from perform(calls.with_cursor(call, cursor), url=url)
        yield page.items if limit is None else page.items[: limit - given]
        given += len(page.items)
        cursor = page.next_cursor
        if cursor is None or (limit is not None and given >= limit):
            return


def submit(
    source: JobSource, *, url: str, progress: Progress | None, quote: str | None = None
) -> Flow[api.Job]:
    """Send the work folder unless the exchange has it, then the job. One request if there is no folder.

    `quote`: a held quote that the job is placed at.
    """
    tree, folder = yield Work(lambda: _ready(source))
    digest = key = None
    if folder is not None and "encrypt" in tree:
        from perak.wire.encryption import Key

        key = Key.generate()
    if folder is not None:
        keys = () if key is None else (key.recipient, tree["encrypt"])
        digest = yield from _send_workdir(folder, encrypt_to=keys, url=url, progress=progress)
    call = calls.submit(tree, digest, workdir_key=None if key is None else key.identity, quote=quote)
    return (yield from perform(call, url=url))


def quote(source: JobSource, *, url: str) -> Flow[api.Quote]:
    """What the job would cost; its work folder stays here."""
    tree, _ = yield Work(lambda: as_job(source))
    return (yield from perform(calls.quote_job(tree), url=url))


def hold_quote(source: JobSource, *, url: str) -> Flow[api.HeldQuote]:
    """Keep the best offer for the job for a minute; its work folder stays here."""
    tree, _ = yield Work(lambda: as_job(source))
    return (yield from perform(calls.hold_quote(tree), url=url))


def resolve_job(ref: str, *, url: str) -> Flow[str]:
    """The id of a job named by its id, its name (the newest counts), or the last characters of its id."""
    if is_id(ref):
        return ref
    if ref.startswith("job-"):
        exchange = yield from perform(calls.exchange(), url=url)
        if is_id(whole := f"{ref}@{exchange.name}"):
            return whole
    named = yield from perform(calls.jobs(name=ref, limit=1), url=url)
    if named.items:
        return named.items[0].id
    found = (yield from _ending_with(ref, url=url)) if len(ref) >= SHORT_ID_MIN else []
    if len(found) == 1:
        return found[0]
    if found:
        raise PerakError(
            f"{ref!r} fits several jobs: {', '.join(found[:5])}. Give more of it.", code="ambiguous"
        )
    problem = api.Problem(
        title="Not found",
        status=404,
        detail=f"There is no job {ref!r}. `perak ps -a` lists all; an id, its end, or a name will do.",
        code="not_found",
    )
    raise NotFound(problem)


def on_job(ref: str, make: Callable[[str], Call[T]], *, url: str) -> Flow[T]:
    """Find a job, then do something with it."""
    job_id = yield from resolve_job(ref, url=url)
    return (yield from perform(make(job_id), url=url))


def download(ref: str, dest: Path, *, url: str, progress: Progress | None) -> Flow[Path]:
    """Fetch the outputs of a job, check them against their digest and unpack them into `dest`."""
    from perak.wire.archive import OUTPUTS_BYTES_MAX, OUTPUTS_FILES_MAX, unpack

    job_id = yield from resolve_job(ref, url=url)
    with tempfile.TemporaryFile() as sink:
        fetch = Fetch(
            path=calls.outputs_path(job_id), sink=sink, limit_bytes=OUTPUTS_BYTES_MAX, progress=progress
        )
        reply = yield from _attempt(fetch, url=url)
        if reply.status != 200:
            raise error_of(calls.problem_of(reply))
        yield Work(lambda: _check_digest(sink, reply.headers.get("x-perak-digest")))
        with tempfile.TemporaryFile() as opened:
            archive: BinaryIO = yield Work(lambda: _decrypted(sink, opened))
            yield Work(
                lambda: unpack(archive, dest, limit_bytes=OUTPUTS_BYTES_MAX, limit_files=OUTPUTS_FILES_MAX)
            )
    return dest


def as_job(source: JobSource) -> tuple[dict[str, Any], Path | None]:
    """The tree to send and the folder to pack. Raises JobFileError."""
    # Most commands read no job file, and it takes a tenth of a second to load what checks one.
    from perak.wire.jobfile import JobFile, load_job_file, parse_job

    if isinstance(source, Mapping):
        tree = dict(source)
        parse_job(tree, workdir_digest=None)
        named = tree.get("workdir")
        return tree, Path(named).absolute() if named else None
    file = source if isinstance(source, JobFile) else load_job_file(source)
    return file.tree, file.workdir


def _ready(source: JobSource) -> tuple[dict[str, Any], Path | None]:
    """The tree with its image pinned and the recipient of its outputs, and the folder to pack."""
    tree, folder = as_job(source)
    if "image" in tree:
        from perak.client.images import pin_image

        tree = pin_image(tree)
    if tree.get("encrypt") is None:
        return {name: value for name, value in tree.items() if name != "encrypt"}, folder
    from perak.client.encryption import own_key
    from perak.wire.encryption import check_recipient

    wanted = tree["encrypt"]
    recipient = own_key().recipient if wanted in (True, "true", "own") else check_recipient(wanted)
    return {**tree, "encrypt": recipient}, folder


def backoff_seconds(failures: int) -> float:
    """Exponential with full jitter's upper half, so that clients cut off together don't return together."""
    whole = RETRY_FIRST_SECONDS * RETRY_FACTOR**failures
    return whole * (0.5 + random.random() / 2)  # noqa: S311


def _attempt(step: Send | Upload | Fetch, *, url: str) -> Flow[Reply]:
    """Carry out `step`, again after a broken connection or a plea to come back later."""
    for failures in range(RETRIES_MAX + 1):
        outcome: Reply | Unreached = yield step
        last = failures == RETRIES_MAX
        if isinstance(outcome, Reply):
            wait = _wait_for(outcome, failures)
            if wait is None or last:
                return outcome
            yield Pause(wait)
        elif outcome.final or last:
            raise ExchangeUnreachable(url, outcome.reason)
        else:
            yield Pause(backoff_seconds(failures))
    raise AssertionError("the last attempt returns or raises")


def _wait_for(reply: Reply, failures: int) -> float | None:
    """Seconds until the next try; None: this answer stands."""
    if reply.status not in RETRIED_STATUSES:
        return None
    try:
        asked = float(reply.headers.get("retry-after", "0"))
    except ValueError:
        asked = 0.0
    return None if asked > RETRY_AFTER_SECONDS_MAX else max(asked, backoff_seconds(failures))


def _send_workdir(
    folder: Path, *, encrypt_to: Sequence[str], url: str, progress: Progress | None
) -> Flow[str]:
    from perak.wire.archive import pack_workdir

    with contextlib.ExitStack() as stack:
        archive: Any = stack.enter_context(tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES))
        packed: Packed | Encrypted = yield Work(lambda: pack_workdir(folder, archive))
        if encrypt_to:
            from perak.wire.encryption import encrypt

            plain = archive
            archive = stack.enter_context(tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES))
            packed = yield Work(lambda: encrypt(plain, archive, to=encrypt_to))
        if not (yield from perform(calls.has_blob(packed.digest), url=url)):
            upload = Upload(
                path=calls.blob_path(packed.digest),
                source=archive,
                size_bytes=packed.size_bytes,
                progress=progress,
            )
            reply = yield from _attempt(upload, url=url)
            if not 200 <= reply.status < 300:
                raise error_of(calls.problem_of(reply))
    return packed.digest


def _decrypted(archive: BinaryIO, opened: BinaryIO) -> BinaryIO:
    """The archive itself, or what is in it where the job asked for encryption. Raises PerakError."""
    from perak.wire.encryption import MAGIC

    start = archive.read(len(MAGIC))
    archive.seek(0)
    if start != MAGIC:
        return archive
    from perak.client.encryption import decrypt_own

    decrypt_own(archive, opened)
    opened.seek(0)
    return opened


def _ending_with(ref: str, *, url: str) -> Flow[list[str]]:
    """Ids among the newest jobs whose part before the @ ends with `ref`."""
    found: list[str] = []
    cursor: str | None = None
    call = calls.jobs(limit=api.PAGE_LIMIT_MAX)
    for _ in range(SHORT_ID_SEARCHED_JOBS // api.PAGE_LIMIT_MAX):
        page = yield from perform(calls.with_cursor(call, cursor), url=url)
        found += [job.id for job in page.items if job.id.partition("@")[0].endswith(ref.lower())]
        cursor = page.next_cursor
        if cursor is None:
            break
    return found


def _check_digest(sink: BinaryIO, announced: str | None) -> None:
    sink.seek(0)
    hashed = hashlib.sha256()
    while chunk := sink.read(HASHED_CHUNK_BYTES):
        hashed.update(chunk)
    sink.seek(0)
    found = f"sha256:{hashed.hexdigest()}"
    if announced != found:
        raise DownloadDamaged(
            f"The outputs have the digest {found}, and {announced} was announced. Download them again."
        )
