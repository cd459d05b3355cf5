"""Say how sure a measured pass rate is.

Runs of one input are not independent: an input that failed once is likely to fail again. To count 30 inputs x 10 runs
as 300 facts gives an interval that is much too narrow. So the runs are first turned into the number of independent
runs they are worth; then comes the exact interval of Clopper and Pearson for that number, as Korn and Graubard (1998)
do for surveys. One thing is added, for rates near 100 %: how alike the runs of one input are can hardly be estimated
when few inputs fail, so the estimate is mixed with the worst case (see `_design_effect`).

The method was chosen by measured coverage: the share of simulated experiments whose 95 % interval holds the true
rate. Beta-binomial inputs; 5, 10, 30, 100 inputs x 1, 5, 10, 20 runs; rates 0.5, 0.7, 0.9, 0.95, 0.98, 0.99, 0.995;
5,000 experiments per setting. "Pooled" is Wilson's interval on all runs taken together. Correlation is that between
two runs of one input: 0 is chance alone, 1 is an agent that always does the same.

                              pooled                     this method
    correlation       lowest   mean   width       lowest   mean   width
    0                  0.883  0.948   0.091        0.958  0.993   0.240
    0.1                0.720  0.854   0.090        0.954  0.989   0.254
    0.3                0.492  0.739   0.089        0.955  0.987   0.280
    0.6                0.235  0.637   0.086        0.956  0.986   0.312
    0.9                0.052  0.566   0.084        0.958  0.985   0.334
    1 run an input     0.854  0.942   0.293        0.954  0.984   0.338
    30 inputs x 10 runs, correlation 0.3
    rate 0.7              -   0.688   0.102           -   0.965   0.215
    rate 0.9              -   0.707   0.067           -   0.991   0.150
    rate 0.95             -   0.691   0.049           -   0.993   0.127
    rate 0.99             -   0.858   0.023           -   0.997   0.118

Lowest and mean coverage of the others over all settings: t on the means of inputs 0.02, 0.71; Wilson with the
estimated design effect 0.22, 0.91 (with t quantile 0.27, 0.93); Korn and Graubard as published 0.31, 0.95; Wilson with
the design effect used here 0.85, 0.97. The bootstrap-t covered 0.47 at 30 x 10, correlation 0.3, rate 0.99, with zero
width in 29 % of the experiments. In harder settings (2 or 3 inputs, up to 200 runs, unequal runs, correlation 1, inputs
of two kinds; 1,200 experiments each) this method never fell below 0.92. It is careful: to narrow it, add inputs, not
runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import gt, mul

from attrs import frozen

__all__ = ["Interval", "pass_rate_interval"]

_METHOD = "cluster-adjusted Clopper-Pearson"


@frozen
class Interval:
    """Hold the limits of an interval for a rate.

    >>> interval = pass_rate_interval(runs=[10] * 30, passes=[10] * 27 + [9, 8, 0])
    >>> f"{interval.low:.3f} to {interval.high:.3f}"
    '0.827 to 0.997'
    """

    low: float
    high: float
    level: float
    """The share of experiments in which such an interval holds the true rate: 0.95 for 95 %."""
    method: str


def pass_rate_interval(runs: Sequence[int], passes: Sequence[int], level: float = 0.95) -> Interval | None:
    """Return an interval for the pass rate of inputs like these, runs being clustered.

    The rate is that of a new run of a new input from the same source, estimated by `sum(passes) / sum(runs)`, which
    the interval always contains. With a single cluster it is close to 0..1, as it should be: many runs of one input
    say little about other inputs.

    Args:
        runs: Runs of each cluster (an input, or all inputs of one source). A cluster without runs is ignored.
        passes: Passed runs of each cluster, in the same order.
        level: Wanted coverage, between 0 and 1.

    Returns:
        The interval, or None when there are no runs at all.

    Raises:
        ValueError: The counts do not fit together, or the level is not between 0 and 1.
    """
    _refuse_misfits(runs, passes, level)
    total = sum(runs)
    if total == 0:
        return None
    passed = sum(passes)
    size = total / _design_effect(runs, passes)
    tail = (1 - level) / 2
    # The lower limit when all pass. Without this bound a first failure could raise the limit, because it is also the
    # first sign that the runs of a cluster differ: right in theory, absurd in a gate.
    best = tail ** (_largest_design_effect(runs) / total)
    low = min(best, _exact_lower_limit(passed / total, size, tail))
    high = 1 - min(best, _exact_lower_limit((total - passed) / total, size, tail))
    return Interval(low=low, high=high, level=level, method=_METHOD)


def _refuse_misfits(runs: Sequence[int], passes: Sequence[int], level: float) -> None:
    """Raise ValueError for arguments that cannot be counts of the same clusters."""
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level!r}")
    if len(runs) != len(passes):
        raise ValueError(f"runs and passes: expected the same length, got {len(runs)} and {len(passes)}")
    if min(passes, default=0) < 0 or any(map(gt, passes, runs)):
        raise ValueError("passes: expected 0 <= passes <= runs in every cluster")


def _largest_design_effect(runs: Sequence[int]) -> float:
    """Return the design effect when the runs of one cluster are all alike: the cluster size if all are equal.

    It is the weighting effect of Kish (1965, Survey Sampling, section 11.7).
    """
    squares: int = sum(map(mul, runs, runs))
    return squares / sum(runs)


def _design_effect(runs: Sequence[int], passes: Sequence[int]) -> float:
    """Return how many of these runs are worth one independent run.

    The estimate is the variance of the pooled rate between clusters (as a ratio of two means: Cochran 1977, Sampling
    Techniques, chapter 6) over its variance if all runs were independent. Returned is the average of it and the
    largest value possible: one vote for the largest, and one for the estimate per cluster that it rests on. So an
    estimate drawn from one or two clusters with failures, as is usual near 100 %, is not taken at its word.
    """
    largest = _largest_design_effect(runs)
    clusters = sum(map(bool, runs))
    votes: int = min(sum(map(bool, passes)), sum(map(gt, runs, passes)))
    if clusters == 1 or votes == 0:
        return largest
    # Whole numbers until the last division: exact at any size, and the same in any order of the clusters.
    total, passed = sum(runs), sum(passes)
    # The sum over clusters of (passes_i * total - runs_i * passed) ** 2, multiplied out.
    spread: int = (
        sum(map(mul, passes, passes)) * total**2
        - 2 * sum(map(mul, runs, passes)) * total * passed
        + sum(map(mul, runs, runs)) * passed**2
    )
    estimate: float = clusters * spread / ((clusters - 1) * total * passed * (total - passed))
    return (largest + votes * min(max(estimate, 1.0), largest)) / (1 + votes)


def _exact_lower_limit(share: float, size: float, tail: float) -> float:
    """Return the lower limit of Clopper and Pearson (1934), for a size that need not be whole.

    It is the `tail` quantile of a beta distribution. That form also takes the fractions which an effective size
    brings (Korn and Graubard 1998, Survey Methodology 24, 193-201).

    Args:
        share: The observed share, 0 to 1.
        size: Number of independent trials, or what they are worth.
        tail: The probability left below the limit, such as 0.025.
    """
    if share == 0:
        return 0.0
    a, b = share * size, (1 - share) * size + 1
    # Bisection cannot leave 0..share, so whatever the rounding the interval is in bounds and holds the estimate.
    low, high = 0.0, share
    for _ in range(50):
        middle = (low + high) / 2
        if _beta_probability(middle, a, b) < tail:
            low = middle
        else:
            high = middle
    return low


def _beta_probability(x: float, a: float, b: float) -> float:
    """Return the probability that a beta(a, b) variable is below x: the regularized incomplete beta function.

    NIST Digital Library of Mathematical Functions, 8.17.22 (the continued fraction) and 8.17.4 (the symmetry, used
    where the fraction would converge slowly).
    """
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_probability(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / (a * _beta_fraction(x, a, b))


def _beta_fraction(x: float, a: float, b: float) -> float:
    """Return 1 + d1/(1 + d2/(1 + ...)) with the coefficients d of DLMF 8.17.23.

    Evaluated from the front by Lentz's method as modified by Thompson and Barnett (1986, Journal of Computational
    Physics 64, 490-509); it takes about sqrt(a + b) steps.
    """
    value = upper = 1.0
    lower = 0.0
    step = 0
    while True:
        step += 1
        m = step // 2
        if step % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        lower = 1 / ((1 + d * lower) or 1e-300)
        upper = (1 + d / upper) or 1e-300
        value *= upper * lower
        if abs(upper * lower - 1) < 1e-13:
            return value
