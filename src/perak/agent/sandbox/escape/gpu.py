"""What a run leaves in a GPU's memory, and what the next finds there: ``gpu.py fill``, ``gpu.py find``.

Run inside the sandbox with the devices that it is to try; the driver's own interface (CUDA Driver API) alone.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

PATTERN = 0x5EEDBA17
PART = 0.9  # of the memory that is free: enough for the second run to be given much of the same
CHUNK_BYTES = 256 * 1024 * 1024
SAMPLE_BYTES = 1024 * 1024  # read back of each chunk, at its start and in its middle


def call(cuda: ctypes.CDLL, name: str, *arguments: object) -> None:
    code = int(getattr(cuda, name)(*arguments))
    if code:
        raise OSError(f"{name} answered {code}")


def chunks(cuda: ctypes.CDLL) -> list[tuple[ctypes.c_uint64, int]]:
    """Most of the current device's free memory."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    call(cuda, "cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    left = int(free.value * PART)
    taken = []
    while left >= 4 * SAMPLE_BYTES:
        size, pointer = min(left, CHUNK_BYTES) // 4 * 4, ctypes.c_uint64()
        if cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(size)):
            break
        taken.append((pointer, size))
        left -= size
    return taken


def fill(cuda: ctypes.CDLL) -> int:
    """Bytes that bear the pattern; they are not given back but by the end of the process."""
    taken = chunks(cuda)
    for pointer, size in taken:
        call(cuda, "cuMemsetD32_v2", pointer, ctypes.c_uint(PATTERN), ctypes.c_size_t(size // 4))
    call(cuda, "cuCtxSynchronize")
    return sum(size for _, size in taken)


def find(cuda: ctypes.CDLL) -> int:
    """Bytes of the sampled ones that bear the pattern."""
    sample = ctypes.create_string_buffer(SAMPLE_BYTES)
    wanted = PATTERN.to_bytes(4, sys.byteorder)
    found = 0
    for pointer, size in chunks(cuda):
        for offset in (0, size // 8 * 4):
            place = ctypes.c_uint64(pointer.value + offset)
            call(cuda, "cuMemcpyDtoH_v2", sample, place, ctypes.c_size_t(SAMPLE_BYTES))
            found += 4 * sample.raw.count(wanted)
    return found


def main(work: str) -> None:
    cuda = ctypes.CDLL("libcuda.so.1")
    call(cuda, "cuInit", 0)
    count = ctypes.c_int()
    call(cuda, "cuDeviceGetCount", ctypes.byref(count))
    got = []
    for ordinal in range(count.value):
        device, context = ctypes.c_int(), ctypes.c_void_p()
        call(cuda, "cuDeviceGet", ctypes.byref(device), ordinal)
        call(cuda, "cuCtxCreate_v2", ctypes.byref(context), 0, device)
        got.append(fill(cuda) if work == "fill" else find(cuda))
    os.write(1, (json.dumps({"check": work, "bytes": got}) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1])
