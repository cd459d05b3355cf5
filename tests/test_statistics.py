"""How sure a pass rate is: the interval for clustered runs and the beta distribution below it."""

from __future__ import annotations

import doctest
import math
import random
import time
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxloop import statistics
from fluxloop.statistics import Interval, pass_rate_interval

ROUNDING = 1e-9

Counts = tuple[list[int], list[int]]


def cluster(most: int = 50) -> st.SearchStrategy[tuple[int, int]]:
    """Draw (runs, passes) of one cluster; all-pass is as common as in real experiments."""
    return st.integers(0, most).flatmap(
        lambda runs: st.tuples(st.just(runs), st.one_of(st.just(runs), st.integers(0, runs)))
    )


def experiments() -> st.SearchStrategy[Counts]:
    """Draw the runs and passes of an experiment in which something was run."""
    return (
        st.lists(cluster(), min_size=1, max_size=40)
        .map(lambda pairs: ([runs for runs, _ in pairs], [passes for _, passes in pairs]))
        .filter(lambda counts: sum(counts[0]) > 0)
    )


def interval_of(runs: list[int], passes: list[int], level: float = 0.95) -> Interval:
    interval = pass_rate_interval(runs, passes, level)
    assert interval is not None
    return interval


def pooled_wilson(runs: list[int], passes: list[int]) -> tuple[float, float]:
    """Return the textbook 95 % interval (Wilson 1927), which takes all runs for independent."""
    size, share, z = sum(runs), sum(passes) / sum(runs), 1.959964
    centre = share + z * z / (2 * size)
    margin = z * math.sqrt(share * (1 - share) / size + z * z / (4 * size * size))
    return (centre - margin) / (1 + z * z / size), (centre + margin) / (1 + z * z / size)


# Laws


@given(experiments(), st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99, 0.999]))
def test_interval_is_in_bounds_and_holds_the_estimate(counts: Counts, level: float) -> None:
    """The interval lies in 0..1, has a width and holds the pooled rate, at every level."""
    runs, passes = counts
    interval = interval_of(runs, passes, level)
    assert 0 <= interval.low <= sum(passes) / sum(runs) <= interval.high <= 1
    assert interval.low < interval.high
    assert level == interval.level


@given(experiments(), st.randoms(use_true_random=False))
def test_order_of_clusters_does_not_matter(counts: Counts, rng: random.Random) -> None:
    """The same clusters in another order give exactly the same interval."""
    pairs = list(zip(*counts, strict=True))
    rng.shuffle(pairs)
    assert interval_of(*counts) == interval_of([runs for runs, _ in pairs], [passes for _, passes in pairs])


@given(experiments(), st.integers(2, 5))
def test_more_clusters_with_the_same_rates_are_not_wider(counts: Counts, times: int) -> None:
    """An experiment repeated on more inputs with the same results is at least as sure."""
    runs, passes = counts
    once, repeated = interval_of(runs, passes), interval_of(runs * times, passes * times)
    assert repeated.high - repeated.low <= once.high - once.low + ROUNDING


@given(experiments())
def test_failures_mirror_passes(counts: Counts) -> None:
    """The interval of the failure rate is that of the pass rate, turned round."""
    runs, passes = counts
    rate = interval_of(runs, passes)
    mirrored = interval_of(runs, [total - passed for total, passed in zip(runs, passes, strict=True)])
    assert (rate.low, rate.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low), abs=ROUNDING)


@given(experiments())
def test_no_result_is_better_than_all_passed(counts: Counts) -> None:
    """A failure never raises the lower limit above the one with all runs passed."""
    runs, passes = counts
    assert interval_of(runs, passes).low <= interval_of(runs, runs).low + ROUNDING


@given(experiments())
def test_higher_level_is_wider(counts: Counts) -> None:
    """To be surer takes a wider interval."""
    usual, surer = interval_of(*counts, level=0.95), interval_of(*counts, level=0.99)
    assert surer.low <= usual.low + ROUNDING
    assert usual.high <= surer.high + ROUNDING


@given(experiments(), st.integers(1, 5))
def test_clusters_without_runs_are_ignored(counts: Counts, empty: int) -> None:
    """Inputs that were never run change nothing."""
    runs, passes = counts
    assert interval_of(runs, passes) == interval_of(runs + [0] * empty, passes + [0] * empty)


@given(st.floats(0.001, 0.999), st.floats(0.1, 1000), st.floats(0.1, 1000))
def test_beta_probability_is_symmetric(x: float, a: float, b: float) -> None:
    """Both ways to evaluate the incomplete beta function agree: I(x; a, b) = 1 - I(1 - x; b, a)."""
    below, above = statistics._beta_probability(x, a, b), statistics._beta_probability(1 - x, b, a)
    assert below + above == pytest.approx(1, abs=1e-9)


# Known values


@pytest.mark.parametrize(
    ("passed", "total", "low", "high"),
    [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0.0, 0.1684), (1, 29, 0.0009, 0.1776)],
)
def test_one_run_per_input_is_the_published_exact_interval(passed: int, total: int, low: float, high: float) -> None:
    """With one run per input the limits are those of Newcombe (1998), table I, method 5 (Clopper-Pearson)."""
    interval = interval_of([1] * total, [1] * passed + [0] * (total - passed))
    assert (low, high) == (round(interval.low, 4), round(interval.high, 4))


@pytest.mark.parametrize(
    ("x", "a", "b", "probability"),
    [
        (0.5, 7.5, 7.5, 0.5),  # symmetric
        (0.3, 1, 4, 1 - 0.7**4),  # closed forms of whole a or b = 1
        (0.3, 4, 1, 0.3**4),
        (0.25, 0.5, 0.5, 1 / 3),  # the arcsine law
        (0.3, 3, 8, 0.6172172136),  # P(binomial(10, 0.3) >= 3)
        (0.0, 2, 3, 0.0),
        (1.0, 2, 3, 1.0),
    ],
)
def test_beta_probability_has_its_known_values(x: float, a: float, b: float, probability: float) -> None:
    """The incomplete beta function agrees with closed forms and with binomial sums."""
    assert statistics._beta_probability(x, a, b) == pytest.approx(probability, abs=1e-10)


@pytest.mark.parametrize("inputs", [1, 5, 30, 100])
def test_all_passed_counts_every_input_once(inputs: int) -> None:
    """When all runs pass, only the number of inputs counts: the limit solves low ** inputs = 0.025."""
    interval = interval_of([10] * inputs, [10] * inputs)
    assert interval.low == pytest.approx(0.025 ** (1 / inputs))
    assert interval.high == 1


def test_runs_all_alike_count_every_input_once() -> None:
    """When each input always passes or always fails, ten runs of it are worth one."""
    alike, single = interval_of([10] * 20, [10] * 15 + [0] * 5), interval_of([1] * 20, [1] * 15 + [0] * 5)
    assert (single.low, single.high) == pytest.approx((alike.low, alike.high))


def test_one_input_says_little_about_others() -> None:
    """A thousand runs of a single input leave nearly everything open."""
    interval = interval_of([1000], [700])
    assert interval.low < 0.01
    assert interval.high > 0.99


def test_failures_in_one_input_are_wider_than_scattered_ones() -> None:
    """The same rate is less sure when one input has all the failures."""
    together, scattered = interval_of([10] * 30, [10] * 29 + [0]), interval_of([10] * 30, [10] * 20 + [9] * 10)
    assert together.high - together.low > scattered.high - scattered.low


# Edges


@pytest.mark.parametrize("runs", [[], [0], [0, 0, 0]])
def test_no_runs_give_no_interval(runs: list[int]) -> None:
    """Without a single run there is no rate."""
    assert pass_rate_interval(runs, runs) is None


@pytest.mark.parametrize(
    ("runs", "passes", "level", "message"),
    [
        ([1, 2], [1], 0.95, "same length, got 2 and 1"),
        ([1], [2], 0.95, "0 <= passes <= runs"),
        ([1], [-1], 0.95, "0 <= passes <= runs"),
        ([1], [1], 95, "between 0 and 1, got 95"),
        ([1], [1], 0.0, "between 0 and 1, got 0.0"),
    ],
)
def test_impossible_counts_are_refused(runs: list[int], passes: list[int], level: float, message: str) -> None:
    """Counts that cannot be, and a level in percent, are errors that say so."""
    with pytest.raises(ValueError, match=message):
        pass_rate_interval(runs, passes, level)


def test_million_inputs_take_a_moment() -> None:
    """A million inputs are counted exactly, straight from arrays, in a few times what adding them up takes."""
    runs, passes = array("I", [4_000]) * 1_000_000, array("I", [4_000, 3_600]) * 500_000
    began = time.process_time()
    assert sum(a * b for a, b in zip(runs, passes, strict=True)) == 15_200_000_000_000
    added = time.process_time()
    interval = pass_rate_interval(runs, passes)
    assert time.process_time() - added < 25 * (added - began)
    assert interval is not None
    assert interval.low < 0.95 < interval.high
    assert interval.high - interval.low < 0.001


def test_example_in_the_docstring_runs() -> None:
    """The documented example gives what it says."""
    outcome = doctest.testmod(statistics)
    assert outcome.attempted > 0
    assert outcome.failed == 0


# Coverage


@pytest.mark.parametrize(
    ("inputs", "runs_each", "rate", "correlation"), [(30, 10, 0.9, 0.3), (30, 10, 0.98, 0.6), (10, 20, 0.7, 0.3)]
)
def test_interval_covers_where_the_pooled_one_fails(
    inputs: int, runs_each: int, rate: float, correlation: float
) -> None:
    """Of 400 simulated experiments with clustered runs at least 90 % of the intervals hold the true rate.

    Wilson's interval on the pooled runs holds it in fewer than 80 %, so the settings are hard ones.
    """
    rng, spread = random.Random(20240501), (1 - correlation) / correlation
    runs, covered, covered_pooled = [runs_each] * inputs, 0, 0
    for _ in range(400):
        rates = [rng.betavariate(rate * spread, (1 - rate) * spread) for _ in runs]
        passes = [sum(rng.random() < one for _ in range(runs_each)) for one in rates]
        interval = interval_of(runs, passes)
        covered += interval.low <= rate <= interval.high
        low, high = pooled_wilson(runs, passes)
        covered_pooled += low <= rate <= high
    assert covered >= 0.90 * 400
    assert covered_pooled < 0.80 * 400
