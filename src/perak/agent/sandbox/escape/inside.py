"""The attacks that one look tells the outcome of, tried from inside the sandbox by an ordinary job.

Runs as ``python3 -I -S inside.py`` in the work folder, beside bait.json, which says what there is outside to
be found. For each attack one JSON line: ``{"check": name, "found": [what was open, ...]}``, or ``"not_run"``
and why. System calls are made by their numbers, so that no missing tool or library reads as a refusal; each
attack has a process of its own, because one that succeeds changes what its process may do.

Standard library only: the Python is whatever lies in the sandbox, 3.9 or later.
"""

# ruff: noqa: S108, PERF401 - the paths are the sandbox's own, and a list grown in steps reads better here

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import socket
import stat
import struct
import time
from collections.abc import Callable
from functools import partial
from typing import Any

ANSWER_SECONDS = 3.0  # an attack takes a millisecond; one that hangs has no outcome
PROCESSES_SEEN_MAX = 16  # bubblewrap, a shell, we and our children; a machine has more

# (x86_64, the generic table that aarch64 and riscv64 have); None: this machine has no such call
NUMBERS = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "mknodat": (259, 33),
    "unshare": (272, 97),
    "setns": (308, 268),
    "clone3": (435, 435),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setgroups": (116, 159),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "open_by_handle_at": (304, 265),
    "userfaultfd": (323, 282),
    "reboot": (169, 142),
    "clock_settime": (227, 112),
    "sethostname": (170, 161),
    "iopl": (172, None),
    "swapon": (167, 224),
    "acct": (163, 89),
    "syslog": (103, 116),
    "fanotify_init": (300, 262),
}
COLUMNS = {"x86_64": 0, "aarch64": 1, "riscv64": 1}
REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS)
AT_FDCWD = -100
NEW_NAMESPACES = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
METADATA = (
    "169.254.169.254",  # AWS, GCP, Azure, OpenStack, DigitalOcean
    "169.254.170.2",  # AWS ECS
    "168.63.129.16",  # Azure's wire server
    "100.100.100.200",  # Alibaba Cloud
    "192.0.0.192",  # Oracle Cloud
    "fd00:ec2::254",  # AWS over IPv6
)
ELSEWHERE = ("192.0.2.1", "10.0.0.1", "2001:db8::1", "fe80::1")
FAMILIES = {
    "AX.25": 3,
    "key": 15,
    "AF_ALG": 38,
    "vsock": 40,
    "Bluetooth": 31,
    "CAN": 29,
    "TIPC": 30,
    "XDP": 44,
}
DEVICES = {
    "null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "core", "fd",
    "stdin", "stdout", "stderr", "pts", "shm", "mqueue", "log",
}  # fmt: skip

Bait = Any
libc = ctypes.CDLL(None, use_errno=True)


class NotRun(Exception):
    """The attack can't be tried here, and why."""


def call(name: str, *arguments: Any) -> str | None:
    """Make a system call; None when it was refused, otherwise how it went through."""
    machine = os.uname().machine
    if machine not in COLUMNS:
        raise NotRun(f"the numbers of system calls on {machine} are not known here")
    number = NUMBERS[name][COLUMNS[machine]]
    if number is None:
        return None
    given = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    given += [ctypes.c_long(0)] * (6 - len(given))
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *given)
    code = ctypes.get_errno()
    if result >= 0:
        return f"{name} succeeded"
    if code in REFUSALS:
        return None
    return f"{name} reached the kernel ({errno.errorcode.get(code, code)})"


def some(*outcomes: str | None) -> list[str]:
    return [each for each in outcomes if each is not None]


def exists(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def is_same(here: os.stat_result, identity: list[int]) -> bool:
    """By device and inode number; a kernel of our own gives numbers of its own, and passes times on."""
    if [here.st_dev, here.st_ino] == identity[:2]:
        return True
    return [here.st_mtime_ns, here.st_ctime_ns] == identity[2:]


def pids() -> list[int]:
    return [int(each) for each in os.listdir("/proc") if each.isdigit()]


def read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(65536)
    except OSError:
        return b""


def status_field(name: str) -> str:
    for line in read("/proc/self/status").decode().splitlines():
        if line.startswith(name + ":"):
            return line.split(":", 1)[1].strip()
    raise NotRun(f"/proc/self/status does not name {name}")


# Files


def host_files(bait: Bait) -> list[str]:
    """The node's own folders, and a file that everybody there may read."""
    found = []
    for path, identity in bait["host_paths"].items():
        here = exists(path)
        if here is not None and is_same(here, identity):
            found.append(f"{path} is the node's")
    if exists(bait["readable_file"]):
        found.append("{}, a file of the node, is there".format(bait["readable_file"]))
    return found


def password_file(bait: Bait) -> list[str]:
    import hashlib

    found = []
    for path, digest in bait["secret_files"].items():
        text = read(path)
        if text and hashlib.sha256(text).hexdigest() == digest:
            found.append(f"{path} of the node can be read")
        here, identity = exists(path), bait["host_secrets"].get(path)
        if here is not None and is_same(here, identity):
            found.append(f"{path} is the node's")
    return found


def agent_state(bait: Bait) -> list[str]:
    return [f"{path} of the agent is there" for path in bait["agent_paths"] if exists(path)]


def read_only_system(bait: Bait) -> list[str]:
    found = []
    for folder in bait["read_only"]:
        path = os.path.join(folder, bait["nonce"])
        try:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        except OSError:
            continue
        os.unlink(path)
        found.append(f"{folder} can be written to")
    return found


def other_jobs(bait: Bait) -> list[str]:
    """What a run beside us has left open to everybody: files, shared memory, sockets."""
    found = []
    name = bait["victim_name"]
    places = [bait["victim_folder"] + "/work", bait["victim_folder"] + "/tmp"]
    places += ["/work", "/tmp", "/var/tmp", "/dev/shm"]
    for pid in pids():
        if pid != os.getpid():
            places += [f"/proc/{pid}/root{each}" for each in ("/work", "/tmp", "/dev/shm")]
            places.append(f"/proc/{pid}/cwd")
    found += [f"its file {place}/{name}" for place in places if exists(f"{place}/{name}")]
    if libc.shmget(ctypes.c_int(bait["victim_key"]), ctypes.c_size_t(0), 0) >= 0:
        found.append("its System V shared memory")
    if connects(socket.AF_UNIX, "\0" + name):
        found.append("its abstract socket")
    if connects(socket.AF_INET, ("127.0.0.1", bait["victim_port"])):
        found.append("its port on the loopback device")
    return found


# Processes


def host_processes(bait: Bait) -> list[str]:
    found = []
    seen = pids()
    for pid in seen:
        line = read(f"/proc/{pid}/cmdline")
        if bait["canary_mark"].encode() in line:
            found.append(f"a process of the node is visible as {pid}")
        if bait["victim_name"].encode() in line:
            found.append(f"a process of another run is visible as {pid}")
    if len(seen) > PROCESSES_SEEN_MAX:
        found.append(f"{len(seen)} processes are visible")
    return found


def is_own(pid: int, bait: Bait) -> bool:
    """Numbers may be the same on both sides of a process namespace."""
    line = read(f"/proc/{pid}/cmdline")
    return bool(line) and bait["canary_mark"].encode() not in line


def signals(bait: Bait) -> list[str]:
    found = []
    for name, pid, number in (
        ("a process of the node", bait["canary_pid"], signal.SIGUSR1),
        ("the agent", bait["agent_pid"], 0),
    ):
        if is_own(pid, bait) and name != "the agent":
            continue
        try:
            os.kill(pid, 0 if exists(f"/proc/{pid}") is None else number)
        except ProcessLookupError:
            continue
        except PermissionError:
            found.append(f"only its owner keeps {name} ({pid}) from a signal")
            continue
        if name != "the agent" or exists(f"/proc/{pid}") is None:
            found.append(f"{name} ({pid}) takes a signal")
    return found


def ptrace(bait: Bait) -> list[str]:
    """Attach to a process of the node that has our own user, and to the first one here."""
    seize, attach = 0x4206, 16
    buffer = ctypes.create_string_buffer(8)
    vector = struct.pack("PN", ctypes.addressof(buffer), 8)
    local = ctypes.create_string_buffer(vector)
    found = []
    for pid in (bait["canary_pid"], 1):
        if pid != 1 and is_own(pid, bait):
            continue
        for name, request in (("seize", seize), ("attach", attach)):
            outcome = call("ptrace", request, pid, 0, 0)
            if outcome is not None and "ESRCH" not in outcome:
                found.append(f"ptrace {name} of {pid}: {outcome}")
        outcome = call("process_vm_readv", pid, local, 1, local, 1, 0)
        if outcome is not None and "ESRCH" not in outcome:
            found.append(f"memory of {pid}: {outcome}")
    return found


def namespaces(bait: Bait) -> list[str]:
    found = []
    for kind, outside in bait["namespaces"].items():
        try:
            here = os.readlink("/proc/self/ns/" + kind)
        except OSError:
            continue  # a kernel of its own has none to share
        if here == outside:
            found.append(f"the {kind} namespace is the node's own")
    return found


def descriptors(bait: Bait) -> list[str]:
    """Whatever the agent had open and forgot to close."""
    found = []
    for each in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink("/proc/self/fd/" + each)
        except OSError:
            continue
        ours = target.startswith(("pipe:", "/dev/null", "/proc/", "/dev/pts"))
        # gVisor's name for the streams that it was given; it hands no other file of the node's on.
        ours = ours or (each in ("0", "1", "2") and target.startswith("host:["))
        if not ours and not target.startswith("/work/"):
            found.append(f"descriptor {each} leads to {target}")
    return found


def terminal(bait: Bait) -> list[str]:
    """With a controlling terminal a job could type into the shell that started it."""
    found: list[str] = []
    try:
        tty = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return found
    found.append("there is a controlling terminal")
    try:
        fcntl.ioctl(tty, 0x5412, b"#")  # TIOCSTI
        found.append("it takes typed text")
    except OSError:
        pass
    return found


# The network


def connects(family: int, address: Any) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as each:
        each.settimeout(0.5)
        try:
            each.connect(address)
        except (OSError, OverflowError):
            return False
        return True


def loopback(bait: Bait) -> list[str]:
    found = []
    for family, host, port in (
        (socket.AF_INET, "127.0.0.1", bait["port4"]),
        (socket.AF_INET6, "::1", bait["port6"]),
    ):
        try:
            if port and connects(family, (host, port)):
                found.append(f"a port of the node at {host} is open")
        except OSError:
            continue  # no such family in here
    return found


def abstract_sockets(bait: Bait) -> list[str]:
    return (
        ["an abstract socket of the node is open"]
        if connects(socket.AF_UNIX, "\0" + bait["abstract"])
        else []
    )


def host_sockets(bait: Bait) -> list[str]:
    return [f"{path} is open" for path in bait["sockets"] if connects(socket.AF_UNIX, path)]


def is_routed(address: str) -> bool:
    """A datagram socket that connects looks the way up, and sends nothing."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as each:
            each.connect((address, 80))
    except OSError:
        return False
    return True


def metadata(bait: Bait) -> list[str]:
    return [f"there is a way to {each}" for each in METADATA if is_routed(each)]


def network(bait: Bait) -> list[str]:
    found = []
    for line in read("/proc/net/dev").decode().splitlines()[2:]:
        name = line.split(":")[0].strip()
        if name != "lo":
            found.append(f"the network device {name} is there")
    return found + [f"there is a way to {each}" for each in ELSEWHERE if is_routed(each)]


def opens(family: int, kind: int, protocol: int = 0) -> bool:
    try:
        socket.socket(family, kind, protocol).close()
    except OSError:
        return False
    return True


def raw_sockets(bait: Bait) -> list[str]:
    found = []
    for name, family, protocol in (("IPv4", socket.AF_INET, 1), ("IPv6", socket.AF_INET6, 58)):
        if opens(family, socket.SOCK_RAW, protocol):
            found.append(f"a raw {name} socket opens")
    return found


def packet_sockets(bait: Bait) -> list[str]:
    kinds = {"raw": socket.SOCK_RAW, "datagram": socket.SOCK_DGRAM}
    return [f"a {name} packet socket opens" for name, kind in kinds.items() if opens(17, kind, 0x300)]


def odd_sockets(bait: Bait) -> list[str]:
    found = []
    for name, family in FAMILIES.items():
        if any(
            opens(family, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)
        ):
            found.append(f"a socket of the family {name} opens")
    return found


# Powers


def capabilities(bait: Bait) -> list[str]:
    found = []
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd"):
        if int(status_field(name), 16):
            found.append(f"{name} is {status_field(name)}")
    # gVisor does not name it. It is a part of CapInh and CapPrm in any case (capabilities(7)).
    if b"CapAmb:" in read("/proc/self/status") and int(status_field("CapAmb"), 16):
        found.append("CapAmb is " + status_field("CapAmb"))
    return found


def setuid(bait: Bait) -> list[str]:
    """Become root outright, or by one of the programs that everywhere else make one so."""
    found = []
    if libc.prctl(39, 0, 0, 0, 0) != 1:  # PR_GET_NO_NEW_PRIVS
        found.append("programs may raise privileges (no_new_privs is off)")
    if os.getuid() != 0:
        # Where nobody in here is root the kernel says EINVAL: only becoming it counts.
        for name, count in (("setresuid", 3), ("setresgid", 3), ("setgroups", 2)):
            outcome = call(name, *[0] * count)
            if outcome is not None and "succeeded" in outcome:
                found.append(outcome)
    return found


def mounts(bait: Bait) -> list[str]:
    none, tmpfs = ctypes.c_char_p(b"none"), ctypes.c_char_p(b"tmpfs")
    bind, remount = 4096, 32
    return some(
        call("mount", none, ctypes.c_char_p(b"/tmp"), tmpfs, 0, 0),
        call("mount", none, ctypes.c_char_p(b"/usr"), 0, bind | remount, 0),
        call("umount2", ctypes.c_char_p(b"/usr"), 0),
        call("fsopen", tmpfs, 0),
        call("open_tree", AT_FDCWD, ctypes.c_char_p(b"/usr"), 1),
    )


def mknod(bait: Bait) -> list[str]:
    found = []
    for name, mode, major, minor in (("memory", stat.S_IFCHR, 1, 1), ("disk", stat.S_IFBLK, 7, 0)):
        path = "/work/{}-{}".format(name, bait["nonce"])
        outcome = call(
            "mknodat", AT_FDCWD, ctypes.c_char_p(path.encode()), mode | 0o600, os.makedev(major, minor)
        )
        if outcome is not None:
            found.append(f"the node of a {name} device: {outcome}")
    return found


def pivot_root(bait: Bait) -> list[str]:
    work = ctypes.c_char_p(b"/work")
    return some(call("chroot", work), call("pivot_root", work, work))


def user_namespaces(bait: Bait) -> list[str]:
    found = []
    for name, flag in NEW_NAMESPACES.items():
        outcome = in_child(partial(call, "unshare", flag))
        if outcome:
            found.append(f"a new {name} namespace: {outcome}")
    arguments = ctypes.create_string_buffer(struct.pack("11Q", NEW_NAMESPACES["user"], *[0] * 10), 88)
    outcome = in_child(partial(call, "clone3", arguments, 88))
    if outcome:
        found.append(f"a new user namespace: {outcome}")
    for kind in ("user", "mnt", "net", "pid"):
        try:
            handle = os.open("/proc/1/ns/" + kind, os.O_RDONLY)
        except OSError:
            continue
        outcome = in_child(partial(call, "setns", handle, 0))
        os.close(handle)
        if outcome:
            found.append(f"the {kind} namespace of another process: {outcome}")
    return found


def devices(bait: Bait) -> list[str]:
    """What lies in /dev besides what every program needs."""
    found = []
    for folder, _, files in os.walk("/dev"):
        if folder.startswith(("/dev/pts", "/dev/shm", "/dev/mqueue")):
            continue
        for each in files:
            path = os.path.join(folder, each)
            mode = os.lstat(path).st_mode
            expected = (folder == "/dev" and each in DEVICES) or path in bait["own_devices"]
            if (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) and not expected:
                found.append(f"{path} is there")
    return found


def kernel_parameters(bait: Bait) -> list[str]:
    found = []
    for path in (
        "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/panic", "/proc/sys/vm/drop_caches", "/proc/sys/vm/overcommit_memory",
        "/proc/sys/net/ipv4/ip_forward", "/proc/sys/fs/binfmt_misc/register", "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity", "/sys/kernel/uevent_helper",
        "/sys/power/state", "/sys/module/kernel/parameters/panic",
        "/sys/kernel/mm/transparent_hugepage/enabled",
    ):  # fmt: skip
        try:
            os.close(os.open(path, os.O_WRONLY))
        except OSError:
            continue
        found.append(f"{path} can be written to")
    for path in (
        "/proc/kcore",
        "/proc/kmsg",
        "/proc/kpagecount",
        "/sys/kernel/debug",
        "/sys/firmware/dmi/tables/DMI",
    ):
        try:
            os.close(os.open(path, os.O_RDONLY))
        except OSError:
            continue
        found.append(f"{path} can be read")
    return found


def control_groups(bait: Bait) -> list[str]:
    found = []
    for folder, _, files in os.walk("/sys/fs/cgroup"):
        for each in files:
            if os.access(os.path.join(folder, each), os.W_OK):
                found.append(f"{os.path.join(folder, each)} can be written to")
                return found
        if folder.count("/") > 6:
            break
    return found


def keyrings(bait: Bait) -> list[str]:
    user, name = ctypes.c_char_p(b"user"), ctypes.c_char_p(bait["nonce"].encode())
    return some(
        call("keyctl", 0, -3, 1),  # KEYCTL_GET_KEYRING_ID of the session
        call("add_key", user, name, name, 4, -4),  # to the keyring of the user
        call("request_key", user, name, 0, 0),
    )


def bpf(bait: Bait) -> list[str]:
    attributes = ctypes.create_string_buffer(struct.pack("5I", 2, 4, 4, 1, 0), 128)  # an array of one
    return some(call("bpf", 0, attributes, 128))


def perf_events(bait: Bait) -> list[str]:
    attributes = ctypes.create_string_buffer(struct.pack("IIQ", 1, 128, 0), 128)  # the processor's clock
    return some(call("perf_event_open", attributes, 0, -1, -1, 0))


def io_uring(bait: Bait) -> list[str]:
    return some(call("io_uring_setup", 1, ctypes.create_string_buffer(120)))


def modules(bait: Bait) -> list[str]:
    text = ctypes.c_char_p(b"")
    return some(
        call("init_module", text, 0, text),
        call("finit_module", 0, text, 0),
        call("delete_module", ctypes.c_char_p(bait["nonce"].encode()), os.O_NONBLOCK),
        call("kexec_load", 0, 0, 0, 0),
    )


def file_handles(bait: Bait) -> list[str]:
    """Opening by inode number goes past every path; of all escapes from containers the oldest."""
    handle = ctypes.create_string_buffer(struct.pack("IiQ", 8, 1, 2), 128)
    here = os.open("/work", os.O_RDONLY)
    return some(call("open_by_handle_at", here, handle, 0))


def machine(bait: Bait) -> list[str]:
    now = ctypes.create_string_buffer(struct.pack("qq", *divmod(time.time_ns(), 10**9)))
    return some(
        call("clock_settime", 0, now),
        call("sethostname", ctypes.c_char_p(b"perak"), 5),
        call("reboot", 0, 0, 0, 0),
        call("swapon", ctypes.c_char_p(b"/work/swap"), 0),
        call("acct", 0),
        call("iopl", 3),
        call("syslog", 3, ctypes.create_string_buffer(16), 16),
        call("fanotify_init", 0, 0),
    )


def user_faults(bait: Bait) -> list[str]:
    return some(call("userfaultfd", 0))


def filter_in_force(bait: Bait) -> list[str]:
    found = []
    if status_field("Seccomp") != "2":
        found.append("no filter of system calls is in force")
    return found


ATTACKS = {
    "host-files": host_files,
    "password-file": password_file,
    "agent-state": agent_state,
    "read-only-system": read_only_system,
    "other-jobs": other_jobs,
    "host-processes": host_processes,
    "signals": signals,
    "ptrace": ptrace,
    "namespaces": namespaces,
    "descriptors": descriptors,
    "terminal": terminal,
    "loopback": loopback,
    "abstract-sockets": abstract_sockets,
    "host-sockets": host_sockets,
    "metadata": metadata,
    "network": network,
    "raw-sockets": raw_sockets,
    "packet-sockets": packet_sockets,
    "odd-sockets": odd_sockets,
    "capabilities": capabilities,
    "setuid": setuid,
    "mounts": mounts,
    "mknod": mknod,
    "pivot-root": pivot_root,
    "user-namespaces": user_namespaces,
    "devices": devices,
    "kernel-parameters": kernel_parameters,
    "control-groups": control_groups,
    "keyrings": keyrings,
    "bpf": bpf,
    "perf-events": perf_events,
    "io-uring": io_uring,
    "modules": modules,
    "file-handles": file_handles,
    "machine": machine,
    "user-faults": user_faults,
    "filter": filter_in_force,
}


def in_child(attack: Callable[[], Any]) -> Any:
    """What `attack` returns, in a process of its own: "" where the kernel killed it for trying."""
    answer, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(answer)
            os.write(ours, (json.dumps({"value": attack()}) + "\n").encode())
        except NotRun as error:
            os.write(ours, json.dumps({"not_run": str(error)}).encode())
        except BaseException as error:
            os.write(ours, json.dumps({"not_run": f"the attack failed: {error!r}"}).encode())
        finally:
            os._exit(0)
    os.close(ours)
    text = b""
    try:
        while select.select([answer], [], [], ANSWER_SECONDS)[0]:
            part = os.read(answer, 65536)
            if not part:
                break
            text += part
        else:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(answer)
    _, status = os.waitpid(pid, 0)
    if text:
        # The first line: where clone3 got through there are two of us, and both have answered.
        said = json.loads(text.splitlines()[0])
        if "not_run" in said:
            raise NotRun(said["not_run"])
        return said["value"]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS:
        return ""
    raise NotRun(f"it gave no answer within {ANSWER_SECONDS:g} s")


def tell(**values: Any) -> None:
    os.write(1, (json.dumps(values) + "\n").encode())


def main() -> None:
    with open("/work/bait.json") as file:
        bait = json.load(file)
    for name in bait["checks"]:
        try:
            tell(check=name, found=in_child(partial(ATTACKS[name], bait)) or [])
        except NotRun as error:
            tell(check=name, not_run=str(error))
    tell(check="end", uid=os.getuid(), kernel=read("/proc/sys/kernel/random/boot_id").decode().strip())
    time.sleep(bait["linger_seconds"])  # so that our owner can be seen from outside


if __name__ == "__main__":
    main()
