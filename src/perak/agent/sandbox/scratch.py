"""A run's scratch space: its work folder and /tmp, on an ext4 image of its own where we may mount one.

The image is sparse and mounted through a loop device that frees itself when the last mount is gone, so
nothing stays behind whoever is killed. Where that can't be done the folders are plain and the shim
watches their size.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

from perak.agent.sandbox.spec import files_max

MIB = 1 << 20
TEMPLATES_MAX = 32
"""Formatted empty images kept by size, about 0.3 MiB each on disk; copying one beats mkfs by ten."""
OVERHEAD_BYTES = 2 * MIB
"""The file system's own tables, beside one part in OVERHEAD_PART, so that the run gets what it asked."""
OVERHEAD_PART = 64
LOOP_TRIES = 64
"""Others may take the free device first."""
DELETE_ATTEMPTS = 10
"""One more for each writer that came between; one is known."""

_MS_NOSUID, _MS_NODEV, _MS_NOATIME = 2, 4, 1024
_MNT_DETACH = 2
# linux/loop.h
_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LO_FLAGS_AUTOCLEAR = 4
_LOOP_CONFIG = struct.Struct("=II QQQQQ IIII 64s64s32s 2Q 8Q")

_libc = ctypes.CDLL(None, use_errno=True)


def mount_image(run_folder: Path, disk_bytes: int, *, templates: Path) -> Path:
    """Make, format and mount the scratch of a run; returns the mount's folder.

    Raises OSError (not permitted, no loop device, no mkfs) and leaves nothing mounted then.
    """
    image, folder = run_folder / "scratch.img", run_folder / "scratch"
    folder.mkdir(exist_ok=True)
    _copy_sparse(_template(_image_bytes(disk_bytes), templates), image)
    device, loop = _attach(image)
    try:
        _mount(device, folder)
    finally:
        os.close(loop)
    return folder


def unmount(run_folder: Path) -> None:
    """Unmount the scratch of a run; nothing happens when it isn't mounted."""
    folder = run_folder / "scratch"
    for flags in (0, _MNT_DETACH):
        while _libc.umount2(os.fsencode(folder), flags) == 0:
            pass
        if ctypes.get_errno() != errno.EBUSY:
            return


def mounted_under(folder: Path, *, mountinfo: str | None = None) -> list[Path]:
    """The mount points below `folder`."""
    text = mountinfo if mountinfo is not None else Path("/proc/self/mountinfo").read_text()
    points = (line.split()[4].encode().decode("unicode_escape") for line in text.splitlines())
    return [Path(point) for point in points if point.startswith(f"{folder}/")]


def give_to(folder: Path, uid: int) -> None:
    """Make `uid` the owner of everything in `folder`, following no link."""
    for _, folders, files, here in os.fwalk(folder, follow_symlinks=False):
        for name in (*folders, *files):
            os.chown(name, uid, uid, dir_fd=here, follow_symlinks=False)
    os.chown(folder, uid, uid)


def delete(folder: Path) -> None:
    """Delete a run's folder, whatever modes a job left in it, and whoever writes into it meanwhile."""
    for _ in range(DELETE_ATTEMPTS - 1):
        try:
            return shutil.rmtree(folder)
        except FileNotFoundError:  # It, or a file of it that was renamed: the proxy writes its counts.
            if not folder.exists():
                return None
        except PermissionError:
            for path, _, _ in os.walk(folder):
                os.chmod(path, 0o700)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
    return shutil.rmtree(folder)


def _image_bytes(disk_bytes: int) -> int:
    whole = disk_bytes + disk_bytes // OVERHEAD_PART + OVERHEAD_BYTES
    return -(-whole // MIB) * MIB


def _template(image_bytes: int, templates: Path) -> Path:
    path = templates / f"ext4-{image_bytes // MIB}m.img"
    if path.exists():
        return path
    templates.mkdir(parents=True, exist_ok=True, mode=0o700)
    others = sorted(templates.glob("ext4-*.img"), key=lambda each: each.stat().st_mtime)
    for old in others[: max(0, len(others) - TEMPLATES_MAX + 1)]:
        old.unlink(missing_ok=True)
    draft = templates / f"draft-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        with draft.open("wb") as file:
            file.truncate(image_bytes)
        _format(draft, files_max(image_bytes))
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _format(image: Path, files: int) -> None:
    """ext4 without a journal (the scratch dies with its run) and without blocks kept back for root."""
    tool = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if tool is None:
        raise OSError(errno.ENOENT, "mkfs.ext4 is missing (install e2fsprogs)")
    argv = [tool, "-q", "-F", "-O", "^has_journal,^resize_inode", "-m", "0", "-b", "4096"]
    argv += ["-N", str(files), "-E", "lazy_itable_init=1,nodiscard,root_owner=0:0", str(image)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(errno.EIO, f"mkfs.ext4 failed: {done.stderr.strip()[:200]}")


def _copy_sparse(source: Path, target: Path) -> None:
    """Copy only what is not a hole, for the owner's eyes only: in the image no file's mode counts."""
    created = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with source.open("rb") as reader, open(created, "wb") as writer:
        size = os.fstat(reader.fileno()).st_size
        writer.truncate(size)
        offset = 0
        while offset < size:
            try:
                start = os.lseek(reader.fileno(), offset, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole from here on
                break
            offset = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
            os.pwrite(writer.fileno(), os.pread(reader.fileno(), offset - start, start), start)


def _attach(image: Path) -> tuple[Path, int]:
    """A loop device on `image` and an open descriptor of it, which must outlive the mount call."""
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(LOOP_TRIES):
            device = Path(f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}")
            loop = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(loop, _LOOP_CONFIGURE, _loop_config(backing, image))
            except OSError as error:
                os.close(loop)
                if error.errno != errno.EBUSY:
                    raise
            else:
                return device, loop
        raise OSError(errno.EBUSY, "no loop device is free")
    finally:
        os.close(control)
        os.close(backing)


def _loop_config(backing: int, image: Path) -> bytes:
    name = os.fsencode(image)[-63:]
    numbers = (0, 0, 0, 0, 0)
    return _LOOP_CONFIG.pack(
        backing, 4096, *numbers, 0, 0, 0, _LO_FLAGS_AUTOCLEAR, name, b"", b"", 0, 0, *(0,) * 8
    )


def _mount(device: Path, folder: Path) -> None:
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOATIME
    options = b"noinit_itable,nobarrier,errors=continue"
    if _libc.mount(os.fsencode(device), os.fsencode(folder), b"ext4", flags, options) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"can't mount {device}: {os.strerror(code)}")
