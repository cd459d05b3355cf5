"""Variations by number."""

from __future__ import annotations

from itertools import combinations, pairwise
from math import comb

from hypothesis import given
from hypothesis import strategies as st

from fluxloop.generating.spaces import Space, combination, drawn, in_turn


@given(st.integers(0, 300), st.integers())
def test_each_place_is_drawn_once(size: int, seed: int) -> None:
    """Whatever the size and the seed; a place without a variation is passed over."""
    space = Space(size, lambda place: str(place) if place % 3 else None)
    assert sorted(drawn(space, seed), key=int) == [str(place) for place in range(size) if place % 3]


def test_the_order_follows_from_the_seed() -> None:
    """And is not that of the places."""
    space = Space(1000, str)
    first, again, other = (list(drawn(space, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert not [place for place, after in pairwise(first) if int(after) - int(place) == 1]


@given(st.integers(1, 9), st.integers(1, 4))
def test_each_combination_has_a_number(count: int, chosen: int) -> None:
    """Every choice of places is found once."""
    found = [tuple(combination(index, count, chosen)) for index in range(comb(count, chosen))]
    assert sorted(found) == list(combinations(range(count), chosen))


def test_streams_come_in_turn() -> None:
    """Until the last has ended."""
    assert list(in_turn([iter("abc"), iter(""), iter("1"), iter("xy")])) == ["a", "1", "x", "b", "y", "c"]
