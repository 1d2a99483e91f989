"""Back-ups of an exchange: its database, its secret, and its blobs, in one folder that proves itself whole.

The database is dumped first. A blob is written once and noted afterwards, so the blobs that are copied after
the dump hold all that the dump names.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from perak.domain.errors import Conflict, DomainError, InvalidInput, Unavailable
from perak.domain.receipt import Receipt
from perak.server import clock
from perak.wire.receipts import verify_receipt
from perak.wire.session import decode_report
from perak.wire.signing import peek_payload

DUMP, MANIFEST = "database.dump", "manifest.json"
FORMAT = 1
READ_BYTES = 2**20
SECRETS = {"exchange.secret": "exchange/exchange.secret", "local.json": "local.json"}
"""Name in the back-up -> below the state folder. Both are the operator's alone."""
BLOBS = "exchange/blobs"


def back_up(url: str, target: Path, *, state_dir: Path, tools: Path | None) -> dict[str, int]:
    """Write the back-up of the exchange; bytes by the name of each part. Raises Conflict, Unavailable.

    `target` appears when it is whole. `tools`: where pg_dump is; None: on the PATH.
    """
    if target.exists():
        raise Conflict(f"{target} is there already; name a new folder, as one back-up never replaces another")
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    _tool("pg_dump", url, ["--format=custom", "--no-owner", f"--file={partial / DUMP}"], tools)
    for name, place in SECRETS.items():
        if (state_dir / place).exists():
            shutil.copyfile(state_dir / place, partial / name)
            (partial / name).chmod(0o600)
    if (state_dir / BLOBS).is_dir():
        shutil.copytree(state_dir / BLOBS, partial / "blobs")
    files = {str(path.relative_to(partial)): _sha256(path) for path in _files(partial)}
    sizes = {part.name: sum(f.stat().st_size for f in _files(part)) for part in sorted(partial.iterdir())}
    manifest = {"format": FORMAT, "made_at": datetime.now(UTC).isoformat(), "files": files}
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    for path in _files(partial):
        _sync(path)
    partial.rename(target)
    return sizes


def check(folder: Path) -> str:
    """When a back-up was made, if every file of it is there and as it was. Raises InvalidInput."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        files, made_at, version = manifest["files"], str(manifest["made_at"]), manifest["format"]
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(f"{folder} is no back-up of Perak: {MANIFEST}: {error}") from None
    if version != FORMAT:
        raise InvalidInput(f"{folder} has format {version}; this Perak reads {FORMAT}, so use the newer one")
    for name, digest in files.items():
        path = folder / name
        if not path.is_file() or _sha256(path) != digest:
            raise InvalidInput(f"{path} is missing or was changed since {made_at}; take another back-up")
    return made_at


def put_back(folder: Path, url: str, *, state_dir: Path, tools: Path | None) -> None:
    """Bring a checked back-up into an empty database and state folder. Raises Unavailable."""
    _tool(
        "pg_restore",
        url,
        ["--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges", str(folder / DUMP)],
        tools,
    )
    (state_dir / "exchange").mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, place in SECRETS.items():
        if (folder / name).exists():
            shutil.copyfile(folder / name, state_dir / place)
            (state_dir / place).chmod(0o600)
    if (folder / "blobs").is_dir():
        shutil.copytree(folder / "blobs", state_dir / BLOBS, dirs_exist_ok=True)


async def settle_live(url: str, *, secret: Path, held: Iterable[tuple[str, str]]) -> tuple[int, int]:
    """End what was live in the back-up: by receipts that others hold, else fenced; how many of each.

    `held`: (name, text) of receipt files. Their evidence is the node's own signed report, which the exchange
    had acknowledged after the back-up, so that the agent has forgotten it.
    """
    from perak.adapters.db.database import Database
    from perak.adapters.db.restored import live_runs
    from perak.app.context import Context
    from perak.app.restored import end_live_run, settle_by_evidence
    from perak.server.identity import open_identity
    from perak.server.settings import Settings

    db = await Database.open(url, pool_size=2)
    try:
        async with db.transaction() as tx:
            settings = Settings(database=url, state_dir=secret.parent, secret_file=secret)
            identity, _ = await open_identity(tx.connection, settings, now=clock.now())
            live = set(await live_runs(tx.connection))
        context = Context(
            exchange=identity.facts,
            new_id=clock.NewId(identity.facts.name),
            sign_receipt=identity.sign_receipt,
            sign_passport=identity.sign_passport,
        )
        for _, text in held:
            receipt = _trusted(text, identity.authority.fingerprint)
            if receipt is None or receipt.evidence is None or receipt.run not in live:
                continue
            report = decode_report(peek_payload(receipt.evidence), jws=receipt.evidence)
            # As of then: a lease's own life bounds what is billed, and must not have grown meanwhile.
            then = datetime.fromisoformat(receipt.issued_at)
            async with db.transaction() as tx:
                await settle_by_evidence(tx, report=report, context=context, now=then)
        async with db.transaction() as tx:
            still = await live_runs(tx.connection)
        for run in still:
            async with db.transaction() as tx:
                await end_live_run(tx, run=run, context=context, now=clock.now())
        return len(live) - len(still), len(still)
    finally:
        await db.close()


async def check_alone(url: str) -> None:
    """That nobody else uses the database. Raises Conflict: a live exchange would lose its runs."""
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        others = await connection.fetchval(
            """select count(*) from pg_stat_activity where datname = current_database()
                and pid <> pg_backend_pid() and backend_type = 'client backend'"""
        )
    finally:
        await connection.close()
    if others:
        raise Conflict(
            f"{others} others are connected to this database; stop every replica of the exchange first, as "
            "this ends each run that the database knows as live"
        )


def _trusted(text: str, authority: str) -> Receipt | None:
    """A receipt that this exchange signed; None for anything else."""
    try:
        verified = verify_receipt(text, trusted_fingerprint=authority)
    except DomainError:
        return None
    return verified.receipt if verified.trusted else None


def _tool(name: str, url: str, arguments: list[str], folder: Path | None) -> None:
    """Run a program of PostgreSQL on the database; the password goes by the environment."""
    program = str(folder / name) if folder else shutil.which(name)
    if program is None:
        raise Unavailable(f"{name} is not on the PATH; install PostgreSQL's client programs")
    parts = urlsplit(url)
    bare = parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", "@")).geturl()
    env = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "PGPASSWORD": unquote(parts.password or "")}
    ended = subprocess.run(
        [program, *arguments, f"--dbname={bare}"], env=env, capture_output=True, text=True, check=False
    )
    if ended.returncode != 0:
        raise Unavailable(f"{name} failed: {ended.stderr.strip()[-800:]}")


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(READ_BYTES):
            digest.update(part)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
