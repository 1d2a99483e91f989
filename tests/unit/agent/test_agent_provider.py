"""The provider's file: what it means, and errors that name the place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.agent.provider import Provider, ProviderFileError, parse, parse_hours
from perak.domain.errors import InvalidInput
from perak.domain.offer import Hours

WHOLE = """
name: workshop
region: de
prices: {gpu: 0.20/h, cpu: 0.02}
hours: ["Mon-Fri 18:00-08:00", "Sat-Sun"]
reserve:
  cpu: 0.5
  memory: 2GiB
  disk: 10GB
forbid: network
"""


def test_a_whole_file() -> None:
    assert parse(WHOLE, name="f") == Provider(
        name="workshop",
        region="DE",
        price_gpu=200_000,
        price_cpu=20_000,
        hours=(
            Hours(start_minute=18 * 60, end_minute=8 * 60, weekdays=(1, 2, 3, 4, 5)),
            Hours(start_minute=0, end_minute=1440, weekdays=(6, 7)),
        ),
        reserve_cpu_milli=500,
        reserve_memory_bytes=2 * 2**30,
        reserve_disk_bytes=10**10,
        forbid=("network",),
    )


def test_an_empty_file_has_no_prices() -> None:
    assert parse("", name="f") == Provider(region="WORLD", price_cpu=None, price_gpu=None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pricing: {cpu: 1}", ["f, line 1, pricing", "prices"]),
        ("name: a\nprices:\n  gpus: 1", ["f, line 3, prices.gpus", "gpu"]),
        ("prices: {cpu: cheap}", ["line 1, prices.cpu", "cheap", "5.00"]),
        ("prices: 0.2", ["line 1, prices", "cpu, gpu"]),
        ("hours:\n- Mon-Fri\n- tomorrow", ["line 3, hours", "tomorrow", "18:00-08:00"]),
        ("hours: [25:00-26:00]", ["line 1, hours"]),
        ("region: middle earth", ["line 1, region"]),
        ("name: a\nname: b", ["line 2, name", "twice"]),
        ("name: a\nforbid: [the sun]", ["line 2, forbid", "network"]),
        ("a: [", ["not valid YAML"]),
        ("- a", ["line 1", "prices"]),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, said: list[str]) -> None:
    with pytest.raises(ProviderFileError) as caught:
        parse(text, name="f")
    for part in said:
        assert part in caught.value.detail


def test_hours_go_past_midnight_and_round_the_week() -> None:
    assert parse_hours("22:00-06:00") == Hours(start_minute=1320, end_minute=360)
    assert parse_hours("Fri-Mon 08:00-24:00").weekdays == (1, 5, 6, 7)
    assert parse_hours("mon,WED").weekdays == (1, 3)


@given(st.text(max_size=30))
def test_any_text_is_hours_or_refused(text: str) -> None:
    try:
        hours = parse_hours(text)
    except InvalidInput:
        return
    assert 0 <= hours.start_minute < 1440
    assert 0 <= hours.end_minute <= 1440


def test_room_and_places_for_what_jobs_bring_along() -> None:
    found = parse(
        "cache: {images: 40GB, inputs: 0}\nprivate_hosts: [Registry.LAN:5000, 10.0.0.7]\n"
        "s3: {endpoint: https://s3.example.org/, region: eu-1}\n",
        name="p.yaml",
    )
    assert (found.cache_images_bytes, found.cache_inputs_bytes) == (40 * 10**9, 0)
    assert found.private_hosts == ("registry.lan:5000", "10.0.0.7")
    assert (found.s3_endpoint, found.s3_region) == ("https://s3.example.org", "eu-1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("private_hosts: registry.lan", "private_hosts"),
        ("private_hosts: ['http://registry.lan']", "is no host"),
        ("private_hosts: ['10.0.0.0/8']", "is no host"),
        ("s3: {endpoint: 'ftp://x'}", "is no endpoint"),
        ("s3: {region: 'EU 1'}", "is no region"),
        ("cache: {images: much}", "cache.images"),
    ],
)
def test_what_is_no_place_is_refused(text: str, said: str) -> None:
    with pytest.raises(ProviderFileError, match=said):
        parse(text, name="p.yaml")


def test_how_long_and_until_when_the_machine_is_offered() -> None:
    text = "min_duration: 30m\navailable_until: 2027-03-31T18:00Z\nreclaim_notice: 1d\n"

    found = parse(text, name="f")

    assert (found.min_duration_seconds, found.reclaim_notice_seconds) == (1800, 86400)
    assert found.available_until_ms == 1_806_516_000_000
    assert parse("available_until: 2027-03-31", name="f").available_until_ms == 1_806_451_200_000
    with pytest.raises(ProviderFileError, match="line 1, available_until: 'soon' is not a moment"):
        parse("available_until: soon", name="f")
