"""Run in the sandbox before a device is offered: `cuInit`, and a kernel whose result is looked at.

Standard library only, and the driver's own interface (CUDA Driver API), so that it needs nothing installed.
Prints what failed and ends with 1; prints PASSED and ends with 0. The devices are those the sandbox shows.
"""

import ctypes
import os
import sys

PASSED = "passed"
COUNT = 4096
THREADS = 256

PTX = """
.version 6.0
.target sm_50
.address_size 64

.visible .entry perak_add(
    .param .u64 perak_a,
    .param .u64 perak_b,
    .param .u64 perak_sum,
    .param .u32 perak_count
)
{
    .reg .pred %outside;
    .reg .b32 %r<6>;
    .reg .f32 %f<4>;
    .reg .b64 %d<11>;

    ld.param.u64 %d1, [perak_a];
    ld.param.u64 %d2, [perak_b];
    ld.param.u64 %d3, [perak_sum];
    ld.param.u32 %r1, [perak_count];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %outside, %r5, %r1;
    @%outside bra DONE;
    cvta.to.global.u64 %d4, %d1;
    cvta.to.global.u64 %d5, %d2;
    cvta.to.global.u64 %d6, %d3;
    mul.wide.u32 %d7, %r5, 4;
    add.s64 %d8, %d4, %d7;
    add.s64 %d9, %d5, %d7;
    add.s64 %d10, %d6, %d7;
    ld.global.f32 %f1, [%d8];
    ld.global.f32 %f2, [%d9];
    add.f32 %f3, %f1, %f2;
    st.global.f32 [%d10], %f3;
DONE:
    ret;
}
"""
"""A vector addition. sm_50 and later: the driver translates it for the card that it finds."""


class CudaError(Exception):
    """A call of the driver failed; the text names it."""


class Cuda:
    """The calls of the driver, each of which raises what it answers."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")

    def call(self, name: str, *arguments: object) -> None:
        code = int(getattr(self._library, name)(*arguments))
        if code:
            raise CudaError(f"{name} answered {code} {self._name_of(code)}".rstrip())

    def _name_of(self, code: int) -> str:
        text = ctypes.c_char_p()
        known = self._library.cuGetErrorName(code, ctypes.byref(text)) == 0
        return text.value.decode(errors="replace") if known and text.value else ""


def check(expected: int) -> None:
    """Raises CudaError unless exactly `expected` devices are there and each adds two vectors rightly."""
    cuda = Cuda()
    cuda.call("cuInit", 0)
    count = ctypes.c_int()
    cuda.call("cuDeviceGetCount", ctypes.byref(count))
    if count.value != expected:
        raise CudaError(f"CUDA sees {count.value} devices in the sandbox instead of {expected}")
    for ordinal in range(expected):
        _add(cuda, ordinal)


def _add(cuda: Cuda, ordinal: int) -> None:
    device, context = ctypes.c_int(), ctypes.c_void_p()
    cuda.call("cuDeviceGet", ctypes.byref(device), ordinal)
    cuda.call("cuCtxCreate_v2", ctypes.byref(context), 0, device)
    module, kernel = ctypes.c_void_p(), ctypes.c_void_p()
    cuda.call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(PTX.encode()))
    cuda.call("cuModuleGetFunction", ctypes.byref(kernel), module, ctypes.c_char_p(b"perak_add"))
    vector = ctypes.c_float * COUNT
    a, b, total = vector(*range(COUNT)), vector(*(2.0 * i for i in range(COUNT))), vector()
    size = ctypes.c_size_t(ctypes.sizeof(vector))
    pointers = []
    for content in (a, b, total):
        pointer = ctypes.c_uint64()
        cuda.call("cuMemAlloc_v2", ctypes.byref(pointer), size)
        cuda.call("cuMemcpyHtoD_v2", pointer, content, size)
        pointers.append(pointer)
    values = [*pointers, ctypes.c_uint32(COUNT)]
    addresses = [ctypes.cast(ctypes.byref(value), ctypes.c_void_p) for value in values]
    arguments = (ctypes.c_void_p * len(values))(*addresses)
    blocks = -(-COUNT // THREADS)
    cuda.call("cuLaunchKernel", kernel, blocks, 1, 1, THREADS, 1, 1, 0, None, arguments, None)
    cuda.call("cuCtxSynchronize")
    cuda.call("cuMemcpyDtoH_v2", total, pointers[2], size)
    cuda.call("cuCtxDestroy_v2", context)
    wrong = sum(total[i] != 3.0 * i for i in range(COUNT))
    if wrong:
        raise CudaError(f"a kernel added {wrong} of {COUNT} numbers wrongly")


def main() -> int:
    try:
        check(len(os.environ["CUDA_VISIBLE_DEVICES"].split(",")))
    except (CudaError, OSError, AttributeError) as error:  # the last two: a library or a call is missing
        sys.stdout.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{PASSED}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
