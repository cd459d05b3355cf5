"""Cases × iterations → planned runs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fluxloop.plan import Plan, run_seed
from fluxloop.records import Case


def cases(count: int) -> list[Case]:
    return [Case(index, f"input_{index}", index) for index in range(count)]


@given(st.integers(0, 40), st.integers(1, 40), st.integers())
def test_a_plan_is_every_case_in_every_iteration(count: int, iterations: int, seed: int) -> None:
    """Its size is inputs × iterations; one pass over all inputs for each iteration; ids differ."""
    plan = Plan(cases=cases(count), iterations=iterations, seed=seed)
    runs = list(plan)
    assert len(plan) == len(runs) == count * iterations
    expected = [(iteration, index) for iteration in range(iterations) for index in range(count)]
    assert [(run.iteration, run.case.index) for run in runs] == expected
    assert len({run.trace_id for run in runs}) == len(runs)
    assert [run.seed for run in runs] == [run_seed(seed, run.case.id, run.iteration) for run in runs]
    assert list(plan) == runs


@given(st.integers(1, 2000), st.integers(1, 3))
def test_ids_sort_as_they_run(count: int, iterations: int) -> None:
    """Ids are padded to the plan's width, at least three digits, so that their order is the plan's."""
    ids = [run.trace_id for run in Plan(cases=cases(count), iterations=iterations, seed=0)]
    assert ids == sorted(ids)
    assert ids[0] == "trace_" + "1".zfill(max(3, len(str(count * iterations))))


@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 5))
def test_more_iterations_only_append(count: int, iterations: int, more: int) -> None:
    """A longer plan begins with the runs of the shorter one."""

    def runs(iterations: int) -> list[tuple[str, int, int]]:
        plan = Plan(cases=cases(count), iterations=iterations, seed=7)
        return [(run.case.id, run.iteration, run.seed) for run in plan]

    assert runs(iterations + more)[: count * iterations] == runs(iterations)


def test_seeds_never_change() -> None:
    """A run of the same seed, input and iteration has the same seed in every version and on every machine."""
    assert run_seed(42, "input_001", 0) == 3726959224
    assert run_seed(0, "é", 3) == 2023333936


@given(st.integers(), st.text(), st.integers(0))
def test_seeds_fit_every_library(seed: int, input_id: str, iteration: int) -> None:
    """From 0 to 2**32 - 1, as numpy asks."""
    assert 0 <= run_seed(seed, input_id, iteration) < 2**32


def test_seeds_differ() -> None:
    """By experiment, by input and by iteration, also where their texts run together."""
    seeds = [run_seed(seed, id, i) for seed in (1, 11) for id in ("1", "11", "a") for i in (0, 1, 11)]
    assert len(set(seeds)) == len(seeds)
