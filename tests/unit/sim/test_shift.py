"""Traces run through the policies: what is read, refused, counted and drawn."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from perak.cli.app import App
from perak.cli.main import cli

np = pytest.importorskip("numpy", reason="the extra `sim` is not installed")

from perak.domain.errors import InvalidInput  # noqa: E402
from perak.sim.shift import POLICIES, Setting, outcome, price_for_wait, shift  # noqa: E402
from perak.sim.traces import JobTrace, read_intensity, read_jobs, window  # noqa: E402

DAY = np.array([400.0] * 8 + [100.0] * 8 + [400.0] * 8)


def some_jobs(count: int = 40) -> JobTrace:
    random = np.random.default_rng(5)
    return JobTrace(
        np.sort(random.uniform(0, 48, count)),
        random.lognormal(0, 1.2, count).clip(0.1, 20),
        random.integers(1, 5, count).astype(float),
    )


@pytest.fixture
def grid() -> np.ndarray:
    return np.tile(DAY, 6)


@pytest.fixture
def files(tmp_path: Path, grid: np.ndarray) -> list[str]:
    jobs = tmp_path / "jobs.csv"
    jobs.write_text("arrival_s,length_s,cpus\n0,3600,1\n3600,10800,4\n")
    lines = ["time,A,B", *(f"2022-01-01T{hour:02},{grams},0" for hour, grams in enumerate(grid))]
    intensity = tmp_path / "grid.csv.gz"
    intensity.write_bytes(gzip.compress("\n".join(lines).encode()))
    return ["--jobs", str(jobs), "--intensity", str(intensity)]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_runs_all_of_every_job_within_its_limit(policy: str, grid: np.ndarray) -> None:
    jobs = some_jobs()
    schedule = shift(jobs, grid, Setting(policy=policy, interruptible=True))

    assert schedule.cpus_by_hour().sum() == pytest.approx((jobs.lengths * jobs.cpus).sum())
    limits = np.where(jobs.lengths < 2, 6, 24)
    assert (schedule.waits() <= limits + 1e-6).all()
    assert outcome(schedule).normalised_carbon <= 1.05


def test_starting_at_once_is_one_and_never_waits(grid: np.ndarray) -> None:
    found = outcome(shift(some_jobs(), grid, Setting(policy="no-wait")))

    assert found.normalised_carbon == pytest.approx(1.0)
    assert found.mean_wait_h == pytest.approx(0.0, abs=1e-9)


def test_carbon_is_kilowatt_hours_times_intensity() -> None:
    jobs = JobTrace(np.array([0.0]), np.array([2.0]), np.array([4.0]))
    found = outcome(shift(jobs, np.full(48, 250.0), Setting(policy="no-wait")), watts_per_cpu=10)

    assert found.carbon_g == pytest.approx(4 * 10 / 1000 * 2 * 250)


def test_the_price_that_is_found_keeps_the_wait_and_saves_more_than_carbon_time(grid: np.ndarray) -> None:
    jobs = some_jobs(200)
    published = outcome(shift(jobs, grid, Setting(policy="carbon-time")))
    price = price_for_wait(jobs, grid, Setting(policy="perak"), mean_wait=published.mean_wait_h)
    ours = outcome(shift(jobs, grid, Setting(policy="perak", wait_price=price)))

    assert ours.mean_wait_h <= published.mean_wait_h
    assert ours.normalised_carbon < published.normalised_carbon


def test_a_queue_that_learns_knows_ended_jobs_alone(grid: np.ndarray) -> None:
    """The last job's length changes nothing but itself, unless all lengths are told beforehand."""
    jobs = some_jobs()
    longer = JobTrace(jobs.arrivals, np.append(jobs.lengths[:-1], 20.0), jobs.cpus)
    assert jobs.lengths[-2] > 0

    def starts(trace: JobTrace, *, learn: bool) -> list[float]:
        schedule = shift(trace, grid, Setting(policy="perak", learn_lengths=learn))
        return [spans[0][0] for spans in schedule.spans[:-1]]

    assert starts(jobs, learn=True) == starts(longer, learn=True)
    assert starts(jobs, learn=False) != starts(longer, learn=False)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (Setting(policy="best"), "There is no policy 'best'"),
        (Setting(policy="ecovisor"), "Add --interruptible"),
        (Setting(policy="no-wait", max_wait_long=-1), "Give zero or more"),
        (Setting(policy="no-wait", max_wait_long=400), "The intensity has 144 hours"),
    ],
)
def test_what_cannot_be_run_is_refused_with_what_to_do(setting: Setting, said: str, grid: np.ndarray) -> None:
    with pytest.raises(InvalidInput, match=said):
        shift(some_jobs(), grid, setting)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("arrival_s,length_s\n1,2\n", "no column cpus"),
        ("arrival_s,length_s,cpus\n", "no rows"),
        ("arrival_s,length_s,cpus\n1,two,3\n", "something else than numbers"),
        ("arrival_s,length_s,cpus\n1,0,3\n", "line 2: length_s is 0"),
        ("arrival_s,length_s,cpus\n1,nan,3\n", "line 2: a value is missing"),
    ],
)
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_a_wrong_trace_is_named_by_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text(text)

    with pytest.raises(InvalidInput, match=said):
        read_jobs(path)


def test_zones_and_windows_that_are_not_there_are_refused(files: list[str]) -> None:
    with pytest.raises(InvalidInput, match="It has A, B"):
        read_intensity(Path(files[3]), "C")
    series = read_intensity(Path(files[3]), "A").zone("A")
    assert window(series, start=10, hours=4).tolist() == series[10:14].tolist()
    with pytest.raises(InvalidInput, match="Change --start or --hours"):
        window(series, start=140, hours=10)


def test_the_command_prints_one_object_a_policy(files: list[str], tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    arguments = [
        "sim",
        "shift",
        *files,
        "--zone",
        "A",
        "--policy",
        "carbon-time",
        "--plot",
        str(plot),
        "--json",
    ]

    one = CliRunner().invoke(cli, arguments, obj=App(), catch_exceptions=False)
    two = CliRunner().invoke(cli, [*arguments, "--policy", "no-wait"], obj=App(), catch_exceptions=False)

    found = json.loads(one.stdout)
    assert {"carbon_g", "normalised_carbon", "mean_wait_h"} <= set(found)
    assert [each["policy"] for each in json.loads(two.stdout)] == ["carbon-time", "no-wait"]
    assert "<svg" in plot.read_text()


def test_the_command_shows_a_table(files: list[str]) -> None:
    arguments = ["sim", "shift", *files, "--zone", "A", "--policy", "perak", "--mean-wait", "1"]
    shown = CliRunner().invoke(cli, arguments, obj=App(), catch_exceptions=False)

    assert shown.exit_code == 0
    assert "NORMALISED" in shown.stdout
    assert "perak" in shown.stdout


def test_errors_of_forecasts_are_shown_by_zone(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    lines = ["time,A,B", *(f"{hour},{300 + 9 * random.normal():.2f},50" for hour in range(24 * 21))]
    path = tmp_path / "grid.csv"
    path.write_text("\n".join(lines))
    arguments = ["sim", "forecast", "--intensity", str(path), "--zone", "A", "--json"]
    shown = CliRunner().invoke(cli, arguments, obj=App(), catch_exceptions=False)

    (found,) = json.loads(shown.stdout)
    assert found["zone"] == "A"
    assert found["ours"] < found["persistence"]
