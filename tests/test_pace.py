"""Rates, and events kept apart."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fluxloop.pace import Pace, spacing

moments = st.floats(0, 1e9, allow_subnormal=False)
gaps = st.floats(0, 1e4, allow_subnormal=False)


@pytest.mark.parametrize(
    ("unit", "seconds"),
    [("s", 1), ("sec", 1), ("second", 1), ("m", 60), ("min", 60), ("minute", 60), ("h", 3600), ("hour", 3600)],
)
@pytest.mark.parametrize("spelling", ["30/{}", " 30 / {} ", "30.0/{}", "3e1/{}"])
def test_every_spelling_of_a_rate(spelling: str, unit: str, seconds: int) -> None:
    """A second, a minute and an hour have short names and long ones, and spaces do no harm."""
    assert spacing(spelling.format(unit)) == seconds / 30


@pytest.mark.parametrize(("rate", "gap"), [("60/min", 1), ("5/s", 0.2), ("1000/h", 3.6), ("0.5/s", 2), ("1/h", 3600)])
def test_spacing(rate: str, gap: float) -> None:
    """So many in so long are evenly spaced."""
    assert spacing(rate) == gap


@given(st.integers(1, 10**6))
def test_one_rate_has_one_spacing(count: int) -> None:
    """Whether it is told by the second, the minute or the hour."""
    assert spacing(f"{count}/s") == spacing(f"{count * 60}/min") == spacing(f"{count * 3600}/h")


@pytest.mark.parametrize(
    "rate",
    [
        *(
            "",
            "/",
            "60",
            "60/",
            "/min",
            "min",
            "min/60",
            "60 min",
            "60 per min",
            "60/day",
            "60/mins",
            "60/MIN",
            "60//min",
        ),
        *("0/min", "-5/s", "nan/s", "inf/s", "1e999/s", "five/s", "1,000/h", "60/min/s", "60:min", "6\u00d710/s"),
    ],
)
def test_what_is_no_rate_is_refused(rate: str) -> None:
    """With what was given, and examples of what is expected."""
    with pytest.raises(ValueError, match=r"^expected a rate such as 60/min, 5/s or 1000/h, got ") as refused:
        spacing(rate)
    assert str(refused.value).endswith(repr(rate))


@given(st.text() | st.builds("{}/{}".format, st.floats(), st.sampled_from(["s", "min", "h"])))
@example("1e-320/h")
def test_a_rate_is_finite_or_refused(rate: str) -> None:
    """Whatever the text, events are some time apart, and it can be waited for."""
    try:
        gap = spacing(rate)
    except ValueError:
        return
    assert 0 < gap < math.inf


@given(gaps, st.lists(moments, min_size=1).map(sorted))
def test_events_are_a_gap_apart(gap: float, asked: list[float]) -> None:
    """However many ask at a time, each gets a moment at least a gap after the one before, and not before it asks."""
    pace = Pace(gap)
    reserved = [pace.reserve(now) for now in asked]
    assert all(moment >= now for now, moment in zip(asked, reserved, strict=True))
    assert all(after >= before + gap for before, after in pairwise(reserved))


@given(gaps, st.lists(moments, min_size=1).map(sorted))
def test_nobody_waits_for_nothing(gap: float, asked: list[float]) -> None:
    """A moment is when it is asked for or exactly a gap after the one before: time unused is not saved up."""
    pace = Pace(gap)
    free = -math.inf
    for now in asked:
        assert pace.next == free
        moment = pace.reserve(now)
        assert moment == max(now, free)
        free = moment + gap


@given(st.floats(0.001, 100), st.lists(moments, min_size=1).map(sorted), moments, st.floats(0, 1000))
def test_no_stretch_of_time_sees_more_than_the_rate_allows(
    gap: float, asked: list[float], begin: float, length: float
) -> None:
    """However short it is, and however long nothing happened before."""
    pace = Pace(gap)
    reserved = [pace.reserve(now) for now in asked]
    inside = [moment for moment in reserved if begin <= moment < begin + length]
    assert (len(inside) - 1) * gap <= length * (1 + 1e-9) + 1e-4  # as exact as numbers of a billion seconds are


@given(gaps, st.lists(moments, min_size=1).map(sorted), st.integers(1, 1000))
def test_a_share_of_a_rate(gap: float, asked: list[float], shares: int) -> None:
    """Who has one of so many shares waits so many times as long."""
    pace, slower = Pace(gap), Pace(gap * shares)
    assert [pace.reserve(now, shares) for now in asked] == [slower.reserve(now) for now in asked]


def test_without_a_gap_nothing_waits() -> None:
    """A gap of 0 is no rate at all."""
    pace = Pace(0)
    assert [pace.reserve(now) for now in (1.0, 1.0, 5.0, 5.0)] == [1.0, 1.0, 5.0, 5.0]
