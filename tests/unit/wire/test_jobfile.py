"""The job file: what is understood, what is refused, and how well an error leads to its place."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perak.domain import job as domain
from perak.domain.errors import NotSupportedYet
from perak.domain.market.utility import PRESETS
from perak.domain.units import MICROS
from perak.wire import jobfile, yamltree
from perak.wire.jobfile import JobFileError, blocks, load_job_file, parse_job, spec_to_tree, values

WHOLE = """\
name: train-digits
workdir: .
setup: pip list
run: python train.py
env: {EPOCHS: 5, RATE: 0.10, DEBUG: no}
python: {version: 3.11, packages: [scikit-learn==1.7, "torch >= 2.6"]}
resources:
  {gpu: [V100, A10], gpu_count: 2, gpu_memory: 16GB.., cpu: 4.., memory: 16GB, disk: 20GB, shm_size: 8GB}
outputs: [out/]
limits: {max_price: 0.40/h, max_cost: 5.00, max_duration: 2h}
disconnect_grace: 0
retry: {max_attempts: 3, on: [node_lost]}
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "job.yaml"
    file.write_text(text)
    return file


def refused(tree: dict[str, Any]) -> JobFileError:
    with pytest.raises(JobFileError) as caught:
        parse_job(tree, workdir_digest=None)
    return caught.value


def minimal(**more: Any) -> dict[str, Any]:
    return {"name": "hello", "run": "echo hello", **more}


def parsed(**more: Any) -> domain.JobSpec:
    return parse_job(minimal(**more), workdir_digest=None)


def test_every_key_of_the_design_is_understood(tmp_path: Path) -> None:
    job = load_job_file(write(tmp_path, WHOLE))

    assert job.workdir == tmp_path
    assert job.spec == domain.JobSpec(
        name="train-digits",
        setup="pip list",
        run="python train.py",
        env={"EPOCHS": "5", "RATE": "0.10", "DEBUG": "no"},
        python=domain.PythonEnvironment(version="3.11", packages=("scikit-learn==1.7", "torch>=2.6")),
        resources=domain.Resources(
            gpu_models=("V100", "A10"),
            gpu_count=2,
            gpu_memory_bytes=16 * 10**9,
            cpu_milli=4000,
            memory_bytes=16 * 10**9,
            disk_bytes=20 * 10**9,
            shm_bytes=8 * 10**9,
        ),
        outputs=("out/",),
        limits=domain.Limits(max_price=4 * MICROS // 10, max_cost=5 * MICROS, max_duration_seconds=7200),
        disconnect_grace_seconds=0,
        retry=domain.Retry(max_attempts=3, on=("node_lost",)),
    )


def test_the_exchange_reads_the_same_job_from_json(tmp_path: Path) -> None:
    job = load_job_file(write(tmp_path, WHOLE))

    assert parse_job(json.loads(json.dumps(job.tree)), workdir_digest=None) == job.spec


def test_what_a_job_brings_in_and_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobfile, "NOT_BUILT_YET", frozenset[str]())
    digest = "sha256:" + "a" * 64
    spec = parsed(
        image={"name": f"localhost:5000/team/torch:2.9@{digest}", "credentials": "REGISTRY"},
        secrets={"MODEL_TOKEN": "file", "OTHER": "env"},
        inputs={"data/": f"https://example.org/set.tar@{digest}", "old/": "job:job-01jd@local/out"},
        network={"allow": ["Models.example.org:443", "*.example.net:80"]},
        placement={"isolation": "gvisor"},
        encrypt=True,
    )

    assert spec.image == domain.Image(
        name="localhost:5000/team/torch:2.9", digest=digest, credentials="REGISTRY"
    )
    assert spec.secrets == (domain.Secret(name="MODEL_TOKEN", kind="file"), domain.Secret(name="OTHER"))
    assert spec.inputs == (
        domain.Input(path="data/", url="https://example.org/set.tar", digest=digest),
        domain.Input(path="old/", url="job:job-01jd@local/out"),
    )
    assert spec.network_allow == ("models.example.org:443", "*.example.net:80")
    assert (spec.isolation, spec.encrypt_to) == ("gvisor", "own")
    assert parse_job(spec_to_tree(spec), workdir_digest=None) == spec


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"image": "UPPER CASE"}, "image.name"),
        ({"image": "x@sha256:12"}, "image.name"),
        ({"secrets": ["1BAD"]}, "secrets.1BAD"),
        ({"secrets": {"OK": "argument"}}, "secrets.OK"),
        ({"secrets": ["TWICE"], "env": {"TWICE": "x"}}, "secrets.TWICE"),
        ({"inputs": {"../up": "s3://bucket/key"}}, "inputs"),
        ({"inputs": {"data": "https://example.org/without-digest"}}, "inputs.data"),
        ({"inputs": {"data": "http://example.org/x@sha256:" + "a" * 64}}, "inputs.data"),
        ({"inputs": {"a//b": "s3://bucket/key"}}, "inputs.a//b"),
        ({"inputs": {"data": "s3://bucket/a", "data/": "s3://bucket/b"}}, "inputs.data/"),
        ({"inputs": {"data/": "s3://bucket/a", "data/deep/x": "s3://bucket/b"}}, "inputs.data/deep/x"),
        ({"image": "debian:12", "python": "3.11"}, "python"),
        ({"image": "debian:12", "run": None, "setup": "make ready"}, "run"),
        ({"network": {"allow": "example.org"}}, "network.allow[0]"),
        ({"network": {"allow": "*:443"}}, "network.allow[0]"),
        ({"placement": {"isolation": "wishful"}}, "placement.isolation"),
        ({"encrypt": "somebody"}, "encrypt"),
    ],
)
def test_what_can_not_be_brought_in_is_refused_at_its_key(
    monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], key: str
) -> None:
    monkeypatch.setattr(jobfile, "NOT_BUILT_YET", frozenset[str]())

    (error,) = refused(minimal(**more)).errors

    assert error["key"] == key


def test_two_keys_are_enough_and_the_rest_has_defaults() -> None:
    assert parsed() == domain.JobSpec(name="hello", run="echo hello")


def test_a_gpu_asks_for_one_card_and_what_feeds_it() -> None:
    one = parsed(resources={"gpu": "V100"}).resources
    two = parsed(resources={"gpu_count": 2}).resources
    by_memory = parsed(resources={"gpu_memory": "16GB.."}).resources

    assert (one.gpu_models, one.gpu_count, one.cpu_milli) == (("V100",), 1, domain.GPU_JOB_CPU_MILLI_DEFAULT)
    assert (two.gpu_count, two.memory_bytes) == (2, 2 * domain.GPU_JOB_MEMORY_BYTES_DEFAULT)
    assert (by_memory.gpu_count, by_memory.gpu_memory_bytes) == (1, 16 * 10**9)


def test_errors_name_file_line_key_and_the_nearest_key(tmp_path: Path) -> None:
    text = (
        "name: a\nrun: echo\nresources:\n  cpus: 4\n  memory: lots\nenv:\n  OK: 1\n  2BAD: x\nmax_cost: 5\n"
    )
    with pytest.raises(JobFileError) as caught:
        load_job_file(write(tmp_path, text))

    places = [(e["line"], e["key"]) for e in caught.value.errors]
    assert places == [(4, "resources.cpus"), (5, "resources.memory"), (8, "env.2BAD"), (9, "max_cost")]
    assert all(e["file"] == str(tmp_path / "job.yaml") for e in caught.value.errors)
    lines = caught.value.detail.splitlines()
    assert lines[0].startswith(f"{tmp_path}/job.yaml:4: resources.cpus: ")
    assert lines[0].endswith("did you mean cpu?")
    assert lines[3].endswith("did you mean limits.max_cost?")


def test_a_missing_key_points_to_the_block_that_lacks_it(tmp_path: Path) -> None:
    with pytest.raises(JobFileError) as caught:
        load_job_file(write(tmp_path, "# a comment\nname: a\n"))

    (error,) = caught.value.errors
    assert (error["key"], error["line"]) == ("run", 2)


@pytest.mark.parametrize(
    "more",
    [{"checkpoint": {}}, {"nodes": 2}, {"interruptible": {"bid": "0.25/h"}}, {"interruptible": {}}],
    ids=lambda more: next(iter(more)),
)
def test_keys_that_are_not_built_are_refused_by_name(more: dict[str, Any]) -> None:
    with pytest.raises(NotSupportedYet, match="not supported yet") as caught:
        parsed(**more)

    assert caught.value.code == "not_supported_yet"


def test_one_node_may_be_asked_for() -> None:
    assert parsed(nodes=1) == parsed()


@pytest.mark.parametrize(
    ("text", "version"),
    [("3.10", "3.10"), ("'3.10'", "3.10"), ("3.11", "3.11"), ("{version: 3.12}", "3.12")],
)
def test_python_versions_survive_yaml(tmp_path: Path, text: str, version: str) -> None:
    job = load_job_file(write(tmp_path, f"name: a\nrun: b\npython: {text}\n"))

    assert job.spec.python is not None
    assert job.spec.python.version == version


def test_a_version_that_lost_its_zero_is_refused_not_guessed() -> None:
    assert '"3.10"' in refused(minimal(python=3.1)).detail


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"name": "Has Spaces"}, "name"),
        ({"run": "   "}, "run"),
        ({"run": ["a", "b"]}, "run"),
        ({"run": "a\0b"}, "run"),
        ({"run": "\ud800"}, "run"),
        ({"run": "x" * (values.SCRIPT_BYTES_MAX + 1)}, "run"),
        ({"env": ["A"]}, "env"),
        ({"env": {"A": 0.1}}, "env.A"),
        ({"env": {"A": None}}, "env.A"),
        ({"env": {"A=B": "x"}}, "env.A=B"),
        ({"env": {f"V{n}": "x" for n in range(values.ENV_COUNT_MAX + 1)}}, "env"),
        ({"python": "3.11.4"}, "python.version"),
        ({"python": {"version": "3.11", "packages": ["-r evil.txt"]}}, "python.packages[0]"),
        (
            {"python": {"version": "3.11", "packages": ["x @ git+https://example.org/x"]}},
            "python.packages[0]",
        ),
        ({"python": {"version": "3.11", "packages": ["../local"]}}, "python.packages[0]"),
        ({"resources": {"gpu": []}}, "resources.gpu"),
        ({"resources": {"gpu": "V100", "gpu_count": 0}}, "resources.gpu_count"),
        ({"resources": {"gpu_count": True}}, "resources.gpu_count"),
        ({"resources": {"memory": "1kB"}}, "resources.memory"),
        ({"resources": {"memory": "9" * 40}}, "resources.memory"),
        ({"resources": {"memory": "8GB..16GB"}}, "resources.memory"),
        ({"resources": {"cpu": 0}}, "resources.cpu"),
        ({"resources": {"cpu": "1e999999"}}, "resources.cpu"),
        ({"resources": {"cpu": float("nan")}}, "resources.cpu"),
        ({"resources": "big"}, "resources"),
        ({"outputs": ["/etc/passwd"]}, "outputs[0]"),
        ({"outputs": ["a/../../b"]}, "outputs[0]"),
        ({"limits": {"max_duration": 0}}, "limits.max_duration"),
        ({"limits": {"max_cost": -1}}, "limits.max_cost"),
        ({"limits": {"max_price": "1e400000"}}, "limits.max_price"),
        ({"disconnect_grace": "soon"}, "disconnect_grace"),
        ({"retry": {"max_attempts": 0}}, "retry.max_attempts"),
        ({"retry": {"on": ["own_failure"]}}, "retry.on[0]"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_wrong_values_are_refused_at_their_key(more: dict[str, Any], key: str) -> None:
    (error,) = refused(minimal(**more)).errors

    assert error["key"] == key


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"name: a\nrun: b\nname: c\n", 3),
        (b"name: [a\n", 2),
        (b"", 1),
        (b"- a\n", 1),
        (b"name: a\nrun: \xff\n", 2),
        (b"name: !!python/object/apply:os.system [id]\n", 1),
        (b"name: a\nrun: !shell b\n", 2),
        (b"? [a]\n: b\n", 1),
        (b"a: b\n---\nc: d\n", 2),
        (b"run: " + b"[" * 1200, None),
        (b"a: &a [x, x, x, x, x, x, x, x]\n" + b"".join(
            b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1) if n > 1 else b"*a"] * 8))
            for n in range(1, 9)
        ), 1),
        (b"a: &a [*a]\n", 1),
        (b"x" * (yamltree.BYTES_MAX + 1), None),
    ],
    ids=["twice", "syntax", "empty", "list", "latin1", "object", "tag", "key", "documents", "deep", "bomb",
         "cycle", "large"],
)  # fmt: skip
def test_hostile_or_broken_yaml_is_refused_with_its_line(
    tmp_path: Path, data: bytes, line: int | None
) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(data)
    with pytest.raises(JobFileError) as caught:
        load_job_file(file)

    assert caught.value.errors[0]["line"] == line


def test_a_missing_file_or_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(JobFileError, match="can't be read"):
        load_job_file(tmp_path / "none.yaml")
    with pytest.raises(JobFileError, match="no folder 'src' beside"):
        load_job_file(write(tmp_path, "name: a\nrun: b\nworkdir: src\n"))


def test_yaml_keeps_text_as_it_was_written() -> None:
    tree, positions = yamltree.read_yaml(b"a: 0123\nb: 12:30\nc: 2026-01-02\nd: 7\ne: '7'\nf: ~\ng: yes\n")

    assert tree == {"a": "0123", "b": "12:30", "c": "2026-01-02", "d": 7, "e": "7", "f": None, "g": "yes"}
    assert positions["c",] == 3


sizes = st.integers(min_value=0, max_value=10**13)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
specs = st.builds(
    domain.JobSpec,
    name=st.from_regex(values.NAME_PATTERN, fullmatch=True),
    run=texts.filter(str.strip),
    env=st.dictionaries(st.sampled_from(["A", "_b", "C3"]), texts),
    python=st.none() | st.builds(
        domain.PythonEnvironment, version=st.sampled_from(["3.9", "3.10"]), packages=st.just(("a>=1",))
    ),
    workdir_digest=st.none() | st.just("sha256:" + "0" * 64),
    resources=st.builds(
        domain.Resources,
        cpu_milli=st.integers(1, 10**6),
        memory_bytes=st.integers(values.MEMORY_BYTES_MIN, 10**13),
        disk_bytes=sizes,
        shm_bytes=sizes,
    ) | st.builds(
        domain.Resources,
        gpu_models=st.sampled_from([(), ("V100",), ("V100", "RTX 3090")]),
        gpu_count=st.integers(1, 8),
        gpu_memory_bytes=sizes,
    ),
    outputs=st.sampled_from([(), ("out/", "*.txt")]),
    limits=st.builds(
        domain.Limits,
        max_price=st.none() | st.integers(0, 10**12),
        max_cost=st.none() | st.integers(0, 10**12),
        max_duration_seconds=st.none() | st.integers(1, 10**6),
        max_carbon_grams=st.none() | st.integers(0, 10**9).map(lambda milligrams: milligrams / 1000),
    ),
    preference=st.sampled_from([domain.Preference(), *PRESETS.values()]) | st.builds(
        domain.Preference,
        carbon_price_per_kg=st.integers(0, 10**12),
        delay_cost_per_hour=st.integers(0, 10**12),
        value=st.none() | st.integers(0, 10**12),
    ),
    start=st.none() | st.builds(
        domain.Start, within_seconds=st.integers(0, 10**5), deadline_seconds=st.none() | st.just(10**6)
    ),
    work=st.none() | st.builds(
        domain.Work, device=st.sampled_from(["V100", "A100 SXM4 80GB", "cpu"]), hours=st.floats(0.001, 1000)
    ),
    regions=st.sampled_from([(), ("EU",), ("DE", "US-CA")]),
    min_grade=st.none() | st.sampled_from(["A", "C"]),
    disconnect_grace_seconds=st.integers(0, 10**5),
    retry=st.builds(domain.Retry, max_attempts=st.integers(1, 20), on=st.sampled_from([(), ("node_lost",)])),
)  # fmt: skip


@given(spec=specs)
def test_a_job_shown_as_a_tree_is_the_same_job(spec: domain.JobSpec) -> None:
    tree = json.loads(json.dumps(spec_to_tree(spec)))

    assert parse_job(tree, workdir_digest=spec.workdir_digest) == spec


json_trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
known_keys = st.sampled_from([*blocks.Job.model_fields, *jobfile.NOT_BUILT_YET, "nonsense"])


@given(tree=st.dictionaries(known_keys, json_trees, max_size=6))
@example(tree={"run": "true", "env": {}, "secrets": [[]]})
def test_any_json_is_either_a_job_or_refused(tree: dict[str, Any]) -> None:
    try:
        parse_job(tree, workdir_digest=None)
    except JobFileError as error:
        assert error.errors  # noqa: PT017


def test_the_shipped_schema_is_current() -> None:
    shipped = json.loads(jobfile.SCHEMA_FILE.read_text())

    assert shipped == jobfile.json_schema(), "run: python -m perak.wire.jobfile"


def test_an_image_may_have_a_program_of_its_own() -> None:
    spec = parse_job({"name": "x", "image": "debian:12"}, workdir_digest=None)
    assert (spec.run, spec.image) == (None, domain.Image(name="debian:12"))
    assert parse_job(spec_to_tree(spec), workdir_digest=None) == spec
