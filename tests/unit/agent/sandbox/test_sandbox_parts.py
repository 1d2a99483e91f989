"""The arguments for bubblewrap, uid slots, the filter, and the shim's small helpers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perak.agent.sandbox import bwrap, process, scratch, seccomp, uids
from perak.agent.sandbox.scratch import mounted_under
from perak.agent.sandbox.spec import Mount, RunSpec
from perak.agent.shim.life import number_after
from perak.agent.shim.limits import tree_use


def _arguments(**changes: object) -> list[str]:
    fields: dict[str, object] = {
        "run_id": "run-1@local",
        "lease_id": "l",
        "job_id": "job-1@local",
        "epoch": 1,
        "setup": None,
        "command": "true",
        "cpu_milli": 1,
        "memory_bytes": 1,
        "disk_bytes": 1,
        "shm_bytes": 4096,
        "log_bytes_max": 1,
        "max_duration_seconds": 1.0,
    }
    spec = RunSpec(**fields | changes)  # type: ignore[arg-type]
    folder = Path("/state/runs/run-1@local")
    return bwrap.arguments(
        spec, scratch=folder / "scratch", own_etc=Path("/state/etc"), scripts=folder / "scripts"
    )


def _environment(args: list[str]) -> dict[str, str]:
    return {args[at + 1]: args[at + 2] for at, each in enumerate(args) if each == "--setenv"}


def test_every_namespace_is_new_and_nothing_is_inherited() -> None:
    args = _arguments()
    for option in ("--unshare-all", "--unshare-user", "--die-with-parent", "--new-session", "--clearenv"):
        assert option in args
    assert args[args.index("--cap-drop") + 1] == "ALL"
    assert "--share-net" not in args


def test_only_work_tmp_and_devices_are_writable() -> None:
    args = _arguments(mounts=(Mount(source="/env/abc", target="/opt/env"),), device_nodes=("/dev/nvidia0",))
    assert [args[at + 2] for at, each in enumerate(args) if each == "--bind"] == ["/tmp", "/var/tmp", "/work"]
    assert [args[at + 2] for at, each in enumerate(args) if each == "--dev-bind"] == ["/dev/nvidia0"]
    at = args.index("/env/abc")
    assert args[at - 1 : at + 2] == ["--ro-bind", "/env/abc", "/opt/env"]
    assert args.index("--remount-ro", args.index("/work")) > 0


def test_device_nodes_are_mounted_while_dev_is_open_and_masks_before_what_lies_in_them() -> None:
    args = _arguments(
        device_nodes=("/drivers/dev/nvidia1",),
        masks=("/proc/driver/nvidia",),
        mounts=(Mount(source="/proc/driver/nvidia/params", target="/proc/driver/nvidia/params"),),
    )
    at = args.index("--dev-bind")
    assert args[at + 1 : at + 3] == ["/drivers/dev/nvidia1", "/dev/nvidia1"]
    closings = [at for at, each in enumerate(args) if each == "--remount-ro"]
    assert at < closings[0]
    assert args[closings[0] + 1] == "/dev"
    order = [args.index("/proc/driver/nvidia"), args.index("/proc/driver/nvidia/params"), closings[1]]
    assert order == sorted(order)
    assert args[closings[1] + 1] == "/proc/driver/nvidia"


def test_a_job_may_set_its_environment_but_not_who_it_is() -> None:
    env = _environment(_arguments(env={"HOME": "/tmp", "PERAK_JOB_ID": "forged"}, path_prefix=("/env/bin",)))
    assert env["HOME"] == "/tmp"
    assert env["PERAK_JOB_ID"] == "job-1@local"
    assert env["PATH"].startswith("/env/bin:")


def test_a_zero_byte_cannot_begin_an_argument_of_its_own() -> None:
    with pytest.raises(ValueError, match="zero byte"):
        _arguments(mounts=(Mount(source="/a\0--bind\0/", target="/b"),))
    with pytest.raises(ValueError, match="zero byte"):
        _arguments(job_id="job\0--share-net")


def test_a_uid_is_taken_once_and_comes_back(tmp_path: Path) -> None:
    slots = tmp_path / "slots"
    runs = [tmp_path / "runs" / f"run-{number}@local" for number in range(3)]
    for run in runs:
        run.mkdir(parents=True)
    taken = [uids.take(run, slots=slots) for run in runs]
    assert len(set(taken)) == 3
    uids.give_back(runs[1], slots=slots)
    assert uids.take(tmp_path / "runs" / "run-9@local", slots=slots) == taken[1]


def test_uids_of_runs_that_are_gone_come_back(tmp_path: Path) -> None:
    slots, runs = tmp_path / "slots", tmp_path / "runs"
    (runs / "run-1@local").mkdir(parents=True)
    kept = uids.take(runs / "run-1@local", slots=slots)
    lost = uids.take(runs / "run-2@local", slots=slots)
    elsewhere = uids.take(tmp_path / "other" / "run-3@local", slots=slots)
    uids.give_back_stale(runs, slots=slots)
    assert {int(link.name) for link in slots.iterdir()} == {kept, elsewhere}
    assert lost not in {kept, elsewhere}


def test_uids_of_agents_that_are_gone_come_back_when_none_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uids, "UID_SLOTS", 2)
    slots, agent, gone = tmp_path / "slots", tmp_path / "agent", tmp_path / "gone"
    agent.mkdir()
    kept = uids.take(agent / "runs" / "run-1@local", slots=slots)
    abandoned = uids.take(gone / "runs" / "run-2@local", slots=slots)
    assert uids.take(agent / "runs" / "run-3@local", slots=slots) == abandoned
    with pytest.raises(RuntimeError, match="all 2 user ids"):
        uids.take(agent / "runs" / "run-4@local", slots=slots)
    assert {int(link.name) for link in slots.iterdir()} == {kept, abandoned}


def test_mounts_below_a_folder(tmp_path: Path) -> None:
    mountinfo = "1 0 7:0 / /s/runs/a\\040b/scratch rw - ext4 /dev/loop0 rw\n2 0 7:1 / /srv rw - ext4 x rw\n"
    assert mounted_under(Path("/s"), mountinfo=mountinfo) == [Path("/s/runs/a b/scratch")]


def test_the_filter_names_a_reason_for_each_call_once() -> None:
    names = [name for group in seccomp.REFUSED.values() for name in group]
    assert len(names) == len(set(names))
    assert {"keyctl", "bpf", "ptrace", "mount", "userfaultfd", "io_uring_setup"} <= set(names)


def test_the_filter_is_written_or_its_absence_explained(tmp_path: Path) -> None:
    problem = seccomp.write_filter(tmp_path / "filter.bpf")
    if problem is not None:
        pytest.skip(problem)
    size = (tmp_path / "filter.bpf").stat().st_size
    assert size > 0
    assert size % 8 == 0  # struct sock_filter


def test_this_process_is_itself_and_nobody_else() -> None:
    me = process.identify(os.getpid())
    assert me is not None
    assert process.is_alive(me)
    assert not process.is_alive(
        process.ProcessId(pid=me.pid, start_ticks=me.start_ticks + 1, boot_id=me.boot_id)
    )
    assert not process.is_alive(process.ProcessId(pid=me.pid, start_ticks=me.start_ticks, boot_id="another"))
    assert process.real_uid(os.getpid()) == os.getuid()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b'{ "child-pid": 123, "net-namespace": 4 }\n', 123),
        (b'{\n    "child-pid": 77\n}\n', 77),
        (b'{ "exit-code": 0 }\n', None),
        (b'{ "child-pid": x }', None),
    ],
)
def test_the_pid_is_found_in_bubblewraps_report(text: bytes, number: int | None) -> None:
    assert number_after(text, b'"child-pid"') == number


def test_disk_use_is_what_files_take(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x").write_bytes(b"x" * 100_000)
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    used, files = tree_use(str(tmp_path))
    assert 90_000 < used < 400_000
    assert files == 4


def test_a_folder_is_deleted_though_a_file_of_it_is_renamed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".network.json").touch()
    (folder / "shim").touch()
    unlink = os.unlink

    def renamed_before(path: str, **at: int) -> None:
        if path == ".network.json" and (folder / path).exists():
            (folder / path).rename(folder / "network.json")
        unlink(path, **at)

    monkeypatch.setattr(os, "unlink", renamed_before)
    scratch.delete(folder)
    assert not folder.exists()
    scratch.delete(folder)
