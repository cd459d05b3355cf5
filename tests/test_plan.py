"""Cases × iterations → planned runs."""

from __future__ import annotations

import attrs
from hypothesis import example, given
from hypothesis import strategies as st

from fluxloop.plan import Plan, Positions, Shard, run_seed, seed_of
from fluxloop.records import Case, PlannedRun


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


@given(st.lists(st.integers(0, 10**9) | st.integers(0, 20_000)), st.lists(st.integers(0, 20_000)))
def test_positions_are_a_set(added: list[int], asked: list[int]) -> None:
    """Whatever is added, in any order and however far apart, is in it, and nothing else."""
    positions, expected = Positions(), set[int]()
    for position in added:
        assert positions.add(position) == (position not in expected)
        expected.add(position)
    assert len(positions) == len(expected)
    assert positions.end == max(expected, default=-1) + 1
    assert [one in positions for one in (*asked, *added)] == [one in expected for one in (*asked, *added)]


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


def shards_of(plan: Plan, count: int) -> list[Plan]:
    return [attrs.evolve(plan, shard=Shard(index, count)) for index in range(1, count + 1)]


@given(st.integers(0, 30), st.integers(1, 10), st.integers(1, 40))
def test_shards_are_the_plan_divided(inputs: int, iterations: int, count: int) -> None:
    """They never overlap, are together everything, each in the plan's order, with its ids and seeds."""
    whole = Plan(cases=cases(inputs), iterations=iterations, seed=7)
    shares = [list(plan) for plan in shards_of(whole, count)]
    runs = [run for share in shares for run in share]
    assert sorted(runs, key=lambda run: run.trace_id) == list(whole)
    for plan, share in zip(shards_of(whole, count), shares, strict=True):
        assert share == sorted(share, key=lambda run: run.trace_id)
        assert len(plan) == plan.planned == len(share)
        assert (plan.total, plan.digits) == (whole.total, whole.digits)


@given(st.integers(0, 10**7), st.integers(1, 1000))
def test_shards_are_of_one_size(total: int, count: int) -> None:
    """They differ by one run at most, and add up."""
    shares = [Shard(index, count).share(total) for index in range(1, count + 1)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


@given(st.integers(0, 10**9), st.integers(1, 1000))
def test_a_run_is_of_one_shard(position: int, count: int) -> None:
    """Wherever it stands in the plan."""
    assert sum(Shard(index, count).takes(position) for index in range(1, count + 1)) == 1


@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 5), st.integers(1, 9))
def test_more_iterations_only_append_to_a_shard(count: int, iterations: int, more: int, shards: int) -> None:
    """What was a shard's stays its own, under the same id when the digits stay."""

    def runs(iterations: int) -> list[list[PlannedRun]]:
        plan = Plan(cases=cases(count), iterations=iterations, seed=7, id_digits=3)
        return [list(one) for one in shards_of(plan, shards)]

    for before, after in zip(runs(iterations), runs(iterations + more), strict=True):
        assert after[: len(before)] == before


def test_no_shard_keeps_an_input_to_itself() -> None:
    """Where as many shards as inputs divide the runs, each has each input at some time."""
    plan = Plan(cases=cases(4), iterations=50, seed=7)
    for shard in shards_of(plan, 4):
        assert {run.case.index for run in shard} == {0, 1, 2, 3}


def test_which_shard_has_a_run_never_changes() -> None:
    """In no version and on no machine, because shards of one experiment may run on several."""
    assert [position for position in range(24) if Shard(2, 8).takes(position)] == [5, 10, 22]
    assert seed_of("my_agent") == 392855348


@given(st.integers(1, 999_999).flatmap(lambda count: st.tuples(st.integers(1, count), st.just(count))))
def test_a_shard_is_told_and_read(parts: tuple[int, int]) -> None:
    """The text of a shard is what it is read from."""
    shard = Shard(*parts)
    assert Shard.of(str(shard)) == Shard.of(f" {shard.index} / {shard.count} ") == shard


@given(st.text() | st.from_regex(r"[0-9]{0,8}/[0-9]{0,8}", fullmatch=True))
@example("0/8")
@example("9/8")
@example("0/0")
@example("1/" + "9" * 5000)
@example("\u0661/\u0668")
def test_what_is_no_shard_is_refused(text: str) -> None:
    """Whatever the text, it is one of its shards or the message says what is expected."""
    try:
        shard = Shard.of(text)
    except ValueError as error:
        assert str(error).startswith("expected a shard ")  # noqa: PT017
    else:
        assert 1 <= shard.index <= shard.count
