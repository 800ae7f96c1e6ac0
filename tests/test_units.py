"""Sizes and durations as people write them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emberd.units import (
    format_duration,
    format_exact_size,
    format_places,
    format_size,
    parse_duration,
    parse_places,
    parse_size,
)


@pytest.mark.parametrize(
    ("written", "size_bytes"),
    [
        (0, 0),
        (1048576, 2**20),
        (1e9, 10**9),
        ("1e9", 10**9),
        ("512", 512),
        ("512B", 512),
        ("900MB", 900 * 10**6),
        ("1.5kB", 1500),
        ("4GiB", 4 * 2**30),
        (" 512 mib ", 512 * 2**20),
        ("1.5k", 1536),
        ("2G", 2 * 2**30),
        ("1TB", 10**12),
        ("1tib", 2**40),
    ],
)
def test_a_size_is_read_in_bytes(written: object, size_bytes: int) -> None:
    assert parse_size(written) == size_bytes


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (90, 90),
        (0.5, 0.5),
        (0.00001, 0.00001),
        ("90", 90),
        ("90s", 90),
        ("250ms", 0.25),
        ("15m", 900),
        ("1h30m", 5400),
        (" 1H 30M ", 5400),
        ("1.5h", 5400),
        ("2d", 172800),
        ("never", math.inf),
        (math.inf, math.inf),  # `.inf` in YAML
    ],
)
def test_a_duration_is_read_in_seconds(written: object, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    ["", "lots", "4 gigs", "-1", -3, "1,5GiB", "GiB", "4GiB4", "9" * 400 + "GiB", "1e999",
     True, None, [], math.inf, math.nan],
)  # fmt: skip
def test_what_is_no_size_is_met_with_an_example(written: object) -> None:
    with pytest.raises(ValueError, match="for example, 512MiB"):
        parse_size(written)


@pytest.mark.parametrize(
    "written", ["", "soon", "15 minutes", "m", "-5s", "1h-5m", "5mm", True, None, {}, -1, math.nan]
)
def test_what_is_no_duration_is_met_with_an_example(written: object) -> None:
    with pytest.raises(ValueError, match="for example, 90s"):
        parse_duration(written)


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (94_580_000, "90.2 MiB"),
        (4 * 2**30, "4 GiB"),
        (5000 * 2**30, "5000 GiB"),
    ],
)
def test_a_size_is_shown_to_people(size_bytes: int, shown: str) -> None:
    assert format_size(size_bytes) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (0.5, "0.5s"),
        (45.0, "45s"),
        (60, "1m"),
        (900.0, "15m"),
        (5400, "1h30m"),
        (90061, "1d1h1m1s"),
        (90.25, "90.25s"),
        (math.inf, "never"),
    ],
)
def test_a_duration_is_shown_to_people(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown


@given(st.floats(min_value=0, max_value=1e12) | st.integers(0, 10**12) | st.just(math.inf))
def test_a_duration_that_was_shown_reads_back_the_same(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 2**53) | st.integers(0, 2**20).map(lambda count: count * 2**20))
def test_a_size_for_yaml_reads_back_the_same(size_bytes: int) -> None:
    assert parse_size(format_exact_size(size_bytes)) == size_bytes


@given(st.integers(0, 2**50))
def test_a_size_for_people_is_near_the_truth(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == pytest.approx(size_bytes, rel=0.06)


@given(st.text() | st.floats() | st.integers() | st.none() | st.lists(st.integers()))
def test_whatever_is_written_is_a_number_or_a_value_error(written: object) -> None:
    for parse in (parse_size, parse_duration):
        try:
            assert parse(written) >= 0
        except ValueError as error:
            assert "for example" in str(error)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(
    ("places", "text"), [((), ""), ((7,), "7"), ((0, 1, 2, 5, 7, 8), "0-2,5,7-8")]
)
def test_places_are_written_shortly_and_read_again(places: tuple[int, ...], text: str) -> None:
    assert format_places(places) == text
    assert parse_places(text) == places
