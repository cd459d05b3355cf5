"""What starts next, and what an attempt's end means."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import pairwise
from typing import Any, NamedTuple

import attrs
import pytest
from attrs import define, frozen
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fluxloop.plan import Plan
from fluxloop.records import Attempt, Case, Observation, PlannedRun, RunError, Status, Trace, TraceSummary, Usage
from fluxloop.schedule import HEARTBEAT, MAX_DELAY, MAX_WAITING, Limits, Schedule, Urgency, total_usage

LAW = settings(max_examples=40, deadline=None)

counts = st.none() | st.integers(0, 10**9)
usages = st.none() | st.builds(Usage, counts, counts)


def observation(usage: Usage | None) -> Observation:
    return Observation("o", "t", None, 1, "generation", "name", "", usage=usage)


@given(st.integers(0, 20), st.integers(1, 4))
def test_each_planned_run_is_given_once_and_in_order(count: int, iterations: int) -> None:
    """As a first attempt; then nothing more."""
    plan = Plan(cases=[Case(i, str(i), i) for i in range(count)], iterations=iterations, seed=0)
    schedule = Schedule(plan)
    taken = list(iter(schedule.take, None))
    assert taken == [(run, 1) for run in plan]
    assert schedule.take() is None


def test_a_stopped_schedule_gives_nothing_more() -> None:
    """Whatever is left stays in the plan."""
    urgency: Urgency = 0
    schedule = Schedule(Plan(cases=[Case(0, "a", 1)], iterations=3, seed=0), urgency=lambda: urgency)
    assert schedule.take() is not None
    urgency = 1
    assert schedule.take() is None


def test_an_attempt_becomes_a_trace() -> None:
    """With everything of its case, its plan and itself."""
    case = Case(4, "id", "raw", "novice", ["e"], {"k": 1})
    error = RunError("agent", "ValueError", "no", "trace")
    seen = (observation(Usage(1, None)), observation(Usage(2, 3)))
    planned = PlannedRun("trace_007", case, 2, 99)
    attempt = Attempt(planned, 1, "error", "in", None, error, "s", "e", 1.5, seen, "out", "err")
    schedule = Schedule([planned])
    schedule.take()
    trace = schedule.settle(attempt)
    assert trace is not None
    assert (trace.trace_id, trace.input_id, trace.input_index, trace.iteration) == ("trace_007", "id", 4, 2)
    assert (trace.persona, trace.expected, trace.metadata, trace.seed) == ("novice", ["e"], {"k": 1}, 99)
    assert (trace.input, trace.output, trace.status, trace.passed, trace.error) == ("in", None, "error", False, error)
    assert (trace.start_time, trace.end_time, trace.duration_ms, trace.total_ms) == ("s", "e", 1.5, 1.5)
    assert (trace.attempts, trace.errors, trace.stdout, trace.stderr) == (1, (), "out", "err")
    assert (trace.observations, trace.observation_count, trace.usage) == (seen, 2, Usage(3, 3))
    short = trace.summary()
    assert short.error is not None
    assert (short.error.kind, short.error.type, short.error.message) == ("agent", "ValueError", "no")
    same = [field.name for field in attrs.fields(TraceSummary) if field.name != "error"]
    assert [getattr(short, name) for name in same] == [getattr(trace, name) for name in same]


@given(st.lists(usages))
def test_usage_adds_up(given_usages: list[Usage | None]) -> None:
    """A figure is None only when no part tells it."""
    total = total_usage([observation(usage) for usage in given_usages])
    told = [usage for usage in given_usages if usage is not None]

    def expected(values: list[int | None]) -> int | None:
        known = [value for value in values if value is not None]
        return sum(known) if known else None

    if not told:
        assert total is None
    else:
        assert total == Usage(
            expected([usage.input_tokens for usage in told]), expected([usage.output_tokens for usage in told])
        )


def test_adding_usage_changes_no_part() -> None:
    """The sum is a record of its own."""
    part = Usage(1, 1)
    total = total_usage([observation(part), observation(part)])
    assert total == Usage(2, 2)
    assert part == Usage(1, 1)


def test_a_run_comes_back_once() -> None:
    """An executor that gives back what it was not given, or gives it back twice, is told so."""
    planned = PlannedRun("trace_001", Case(0, "a", 1), 0, 0)
    attempt = Attempt(planned, 1, "ok", 1, 1, None, "s", "e", 1.5, (), None, None)
    schedule = Schedule([planned])
    with pytest.raises(ValueError, match="gave back trace_001, attempt 1, which is not in flight"):
        schedule.settle(attempt)
    schedule.take()
    schedule.settle(attempt)
    with pytest.raises(ValueError, match="not in flight"):
        schedule.settle(attempt)


def test_an_attempt_that_was_not_given_out_is_refused() -> None:
    """Each attempt has its number, by which one that was given up is not taken for the next."""
    schedule = Schedule([planned := PlannedRun("trace_001", Case(0, "a", 1), 0, 0)])
    schedule.take()
    with pytest.raises(ValueError, match="gave back trace_001, attempt 2, which is not in flight"):
        schedule.settle(Attempt(planned, 2, "ok", 1, 1, None, "s", "e", 1.5, (), None, None))


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Outcome(NamedTuple):
    """How an attempt goes."""

    seconds: float = 0.1
    status: Status = "ok"
    retry: bool = False
    retry_after: float | None = None


FAILED = Outcome(status="error")
AGAIN = Outcome(status="error", retry=True)


def planned_runs(seeds: list[int]) -> list[PlannedRun]:
    return [PlannedRun(f"trace_{i:03d}", Case(i, f"i{i}", i), 0, seed) for i, seed in enumerate(seeds)]


def ended(planned: PlannedRun, number: int, outcome: Outcome, began: float = 0.0) -> Attempt:
    """An attempt's record, in which everything says whose and which it is."""
    which = f"{planned.trace_id}/{number}"
    seen = Observation(which, planned.trace_id, None, number, "generation", "call", "", usage=Usage(number, None))
    error = None if outcome.status == "ok" else RunError("agent", "ValueError", which)
    return Attempt(
        planned,
        number,
        outcome.status,
        planned.case.input,
        which,
        error,
        f"{began!r}",
        f"{began + outcome.seconds!r}",
        outcome.seconds * 1000,
        (seen,),
        f"{which}\n",
        None if number == 1 else f"{which}!\n",
        outcome.retry,
        outcome.retry_after,
        outcome.retry_after is not None,
    )


def longest_backoff(limits: Limits, number: int) -> float:
    """The seconds before the retry of attempt `number`, at most; at least they are half of it."""
    return min(limits.retry_delay * 2.0 ** (number - 1), MAX_DELAY)


@frozen(kw_only=True)
class Scenario:
    """An experiment: what is planned and allowed, and how everything will go."""

    seeds: list[int]
    outcomes: list[list[Outcome]]
    """For each run those of its attempts; any further one is ok."""
    limits: Limits
    parallel: int
    began: float
    lag: float
    """By how many seconds the executor is late whenever it waits."""
    asked: tuple[float, float] = (math.inf, math.inf)
    """After how many seconds Ctrl-C comes, and comes again."""

    def outcome(self, planned: PlannedRun, number: int) -> Outcome:
        mine = self.outcomes[planned.case.index]
        return mine[number - 1] if number <= len(mine) else Outcome()

    def urgency(self, now: float) -> Urgency:
        return 2 if now - self.began >= self.asked[1] else 1 if now - self.began >= self.asked[0] else 0


class Start(NamedTuple):
    at: float
    trace_id: str
    number: int


class End(NamedTuple):
    at: float
    attempt: Attempt
    trace: Trace | None


class Idle(NamedTuple):
    at: float
    seconds: float


@define
class Story:
    """What happened, in order."""

    scenario: Scenario
    events: list[Start | End | Idle]
    schedule: Schedule
    finished_at: float

    @property
    def starts(self) -> list[Start]:
        return [event for event in self.events if isinstance(event, Start)]

    @property
    def ends(self) -> list[End]:
        return [event for event in self.events if isinstance(event, End)]

    @property
    def traces(self) -> list[Trace]:
        return [end.trace for end in self.ends if end.trace]

    def starts_of(self, trace_id: str) -> list[Start]:
        return [start for start in self.starts if start.trace_id == trace_id]

    def after(self, event: Start | End) -> list[Start]:
        """The starts that follow an event."""
        place = next(place for place, other in enumerate(self.events) if other is event)
        return [other for other in self.events[place:] if isinstance(other, Start)]


def simulate(scenario: Scenario) -> Story:
    """Play an executor: fill the slots, wait as long as told, settle what has ended."""
    clock = Clock(scenario.began)
    schedule = Schedule(
        planned_runs(scenario.seeds), scenario.limits, clock=clock, urgency=lambda: scenario.urgency(clock.now)
    )
    events: list[Start | End | Idle] = []
    flying: list[tuple[float, int, Attempt]] = []
    begun: set[tuple[str, int]] = set()
    for _ in range(3_000):
        if schedule.finished:
            assert schedule.take() is None
            return Story(scenario, events, schedule, clock.now)
        while len(flying) < scenario.parallel and (taken := schedule.take()):
            which = (taken[0].trace_id, taken[1])
            assert which not in begun
            begun.add(which)
            outcome = scenario.outcome(*taken)
            attempt = ended(*taken, outcome, clock.now)
            heappush(flying, (clock.now + outcome.seconds, len(events), attempt))
            events.append(Start(clock.now, *which))
        told = {(planned.trace_id, number) for planned, number, _ in schedule.in_flight}
        assert told == {(attempt.planned.trace_id, attempt.number) for _, _, attempt in flying}
        wait = HEARTBEAT
        if len(flying) < scenario.parallel:
            wait = schedule.wait_seconds()
            assert wait > 0, "it would be asked again and again"
            events.append(Idle(clock.now, wait))
        until = clock.now + wait + scenario.lag
        clock.now = max(clock.now, min(until, flying[0][0])) if flying else until
        while flying and flying[0][0] <= clock.now:
            attempt = heappop(flying)[2]
            events.append(End(clock.now, attempt, schedule.settle(attempt)))
    raise AssertionError("it does not end")


spans = st.floats(0, 2, allow_subnormal=False)
outcomes = spans.map(Outcome) | st.builds(
    Outcome,
    spans,
    st.sampled_from(["error", "timeout", "crashed"]),
    st.booleans(),
    st.sampled_from([None, 0.0]) | st.floats(0, 3),
)
retries: dict[str, Any] = {
    "max_retries": st.integers(0, 3),
    "max_crash_retries": st.integers(0, 2),
    "retry_delay": st.sampled_from([0.0, 0.01, 1.0]) | spans,
    "start_gap": st.sampled_from([0.0, 0.0, 0.1, 1 / 3]),
}
stops: dict[str, Any] = {
    "max_failures": st.none() | st.integers(1, 4),
    "stop_when_all_fail": st.integers(0, 4),
    "max_seconds": st.none() | st.floats(0.1, 5),
    "grace": st.sampled_from([math.inf, 0.0, 0.5]),
}


def scenarios(limits: st.SearchStrategy[Limits], **more: Any) -> st.SearchStrategy[Scenario]:
    def of(count: int) -> st.SearchStrategy[Scenario]:
        parts: dict[str, Any] = {
            "seeds": st.lists(st.integers(0, 2**32 - 1), min_size=count, max_size=count),
            "outcomes": st.lists(st.lists(outcomes, max_size=5), min_size=count, max_size=count),
            "limits": limits,
            "parallel": st.integers(1, 4),
            "began": st.sampled_from([0.0, 0.1, 12_345.678, 1e9 + 1 / 3]),
            "lag": st.sampled_from([0.0, 0.0, 0.003, 0.7]),
        }
        return st.builds(Scenario, **parts | more)

    return st.integers(0, 8).flatmap(of)


to_the_end = scenarios(st.builds(Limits, **retries))
interrupted = st.tuples(st.floats(0, 4) | st.just(math.inf), st.floats(0, 2) | st.just(math.inf))
stopped = scenarios(
    st.builds(Limits, **retries, **stops), asked=interrupted.map(lambda both: (both[0], both[0] + both[1]))
)


@LAW
@given(to_the_end | stopped)
def test_runs_begin_in_the_order_of_the_plan(scenario: Scenario) -> None:
    """Each planned run is given once as a first attempt; a stop leaves out the end of the plan."""
    story = simulate(scenario)
    first = [start.trace_id for start in story.starts if start.number == 1]
    assert first == [run.trace_id for run in planned_runs(scenario.seeds)][: len(first)]


@LAW
@given(to_the_end)
def test_every_run_ends_as_one_trace(scenario: Scenario) -> None:
    """Nothing is lost and nothing comes twice, however often it was tried."""
    story = simulate(scenario)
    assert Counter(t.trace_id for t in story.traces) == Counter(run.trace_id for run in planned_runs(scenario.seeds))
    assert story.schedule.stop_reason is None
    assert not story.schedule.stopping


@LAW
@given(stopped)
def test_a_run_that_is_stopped_is_no_trace(scenario: Scenario) -> None:
    """Each run ends as one trace or is not run: it never began, was left in flight, or waited to be tried again."""
    story = simulate(scenario)
    left = {planned.trace_id for planned, _, _ in story.schedule.in_flight}
    last = {end.attempt.planned.trace_id: end.trace for end in story.ends}
    for run in planned_runs(scenario.seeds):
        found = [trace for trace in story.traces if trace.trace_id == run.trace_id]
        began = story.starts_of(run.trace_id)
        if found:
            assert len(found) == 1
            assert run.trace_id not in left
        elif began and run.trace_id not in left:
            assert last[run.trace_id] is None
        if not found:
            assert story.schedule.stopping


def is_retried(limits: Limits, outcomes: Sequence[Outcome]) -> bool:
    """Whether another attempt follows these."""
    crashes = sum(outcome.status == "crashed" for outcome in outcomes)
    if outcomes[-1].status == "crashed":
        return crashes <= limits.max_crash_retries
    return outcomes[-1].retry and len(outcomes) - crashes <= limits.max_retries


@LAW
@given(to_the_end | stopped)
def test_attempts_are_counted_and_bounded(scenario: Scenario) -> None:
    """A run is tried again exactly when its attempt asks for it and retries are left, and never twice at a time.

    When its worker has died it need not ask, and has retries of its own.
    """
    story = simulate(scenario)
    limits = scenario.limits
    allowed = limits.max_retries + limits.max_crash_retries + 1
    for run in planned_runs(scenario.seeds):
        mine: list[tuple[str, int]] = []
        for event in story.events:
            if isinstance(event, Start) and event.trace_id == run.trace_id:
                mine.append(("start", event.number))
            elif isinstance(event, End) and event.attempt.planned.trace_id == run.trace_id:
                mine.append(("end", event.attempt.number))
        assert mine == [(what, number) for number in range(1, allowed + 1) for what in ("start", "end")][: len(mine)]
    for end in story.ends:
        outcomes = [scenario.outcome(end.attempt.planned, number) for number in range(1, end.attempt.number + 1)]
        assert (end.trace is None) == is_retried(limits, outcomes)
        assert end.trace is None or end.trace.attempts == end.attempt.number


@LAW
@given(to_the_end)
def test_a_retried_run_keeps_what_went_before(scenario: Scenario) -> None:
    """Errors, observations, output and usage of all attempts, and the time from the first start to the last end."""
    story = simulate(scenario)
    for trace in story.traces:
        attempts = [end.attempt for end in story.ends if end.attempt.planned.trace_id == trace.trace_id]
        last, starts = attempts[-1], story.starts_of(trace.trace_id)
        assert [attempt.number for attempt in attempts] == [*range(1, trace.attempts + 1)]
        assert trace.errors == tuple(attempt.error for attempt in attempts[:-1])
        assert (trace.error, trace.output, trace.status) == (last.error, last.output, last.status)
        assert trace.observations == tuple(seen for attempt in attempts for seen in attempt.observations)
        assert trace.observation_count == len(attempts)
        assert trace.usage == Usage(sum(range(1, trace.attempts + 1)), None)
        assert trace.stdout == "".join(f"{trace.trace_id}/{n}\n" for n in range(1, trace.attempts + 1))
        assert trace.stderr == ("".join(f"{trace.trace_id}/{n}!\n" for n in range(2, trace.attempts + 1)) or None)
        assert (trace.start_time, trace.end_time) == (attempts[0].start_time, last.end_time)
        assert trace.duration_ms == last.duration_ms
        waited = starts[-1].at - starts[0].at
        assert trace.total_ms == pytest.approx(waited * 1000 + last.duration_ms, abs=0.001)


@LAW
@given(to_the_end | stopped)
def test_failures_that_no_trace_tells_are_known(scenario: Scenario) -> None:
    """A run that is left while it waits for another attempt, or is at it, has failed if the agent had."""
    story = simulate(scenario)
    done = {trace.trace_id for trace in story.traces}
    failed = {
        end.attempt.planned.trace_id
        for end in story.ends
        if end.attempt.error is not None and end.attempt.error.kind != "infrastructure"
    }
    assert story.schedule.failures_left == len(failed - done)


@pytest.mark.parametrize(("kind", "left"), [("agent", 1), ("timeout", 1), ("infrastructure", 0)])
def test_a_failure_is_known_though_its_next_attempt_is_taken_back(kind: Any, left: int) -> None:
    """Waiting, in flight, and when the executor could not start it any more."""
    (planned,) = planned_runs([1])
    schedule = Schedule([planned], Limits(max_retries=1, retry_delay=0.0))
    schedule.take()
    attempt = ended(planned, 1, AGAIN)
    attempt.error = RunError(kind, "Error", "no")
    assert schedule.settle(attempt) is None
    assert schedule.failures_left == left
    assert schedule.take() == (planned, 2)
    assert schedule.failures_left == left
    schedule.drop(planned)
    assert schedule.failures_left == left


@LAW
@given(to_the_end)
def test_a_retry_starts_no_sooner_than_it_may(scenario: Scenario) -> None:
    """Not before half of its backoff is over, nor before the service may be called again."""
    story = simulate(scenario)
    for end in story.ends:
        if end.trace is None:
            attempt = end.attempt
            again = story.starts_of(attempt.planned.trace_id)[attempt.number]
            assert again.at >= end.at + longest_backoff(scenario.limits, attempt.number) / 2
            assert again.at >= end.at + (attempt.retry_after or 0)


@LAW
@given(to_the_end | stopped)
def test_nothing_starts_while_a_service_is_to_be_left_alone(scenario: Scenario) -> None:
    """`Retry-After` holds for all runs, whether or not the one it was said to is tried again."""
    story = simulate(scenario)
    for end in story.ends:
        if end.attempt.retry_after is not None:
            assert all(start.at >= end.at + end.attempt.retry_after for start in story.after(end))


@LAW
@given(to_the_end | stopped)
def test_starts_are_a_gap_apart(scenario: Scenario) -> None:
    """First attempts and retries alike."""
    starts = simulate(scenario).starts
    assert all(after.at >= before.at + scenario.limits.start_gap for before, after in pairwise(starts))


@LAW
@given(to_the_end | stopped)
def test_who_may_not_start_may_wait(scenario: Scenario) -> None:
    """For more than nothing and at most a heartbeat, and the waits lead somewhere: nobody asks in a busy loop."""
    story = simulate(scenario)
    waits = [event.seconds for event in story.events if isinstance(event, Idle)]
    assert all(0 < seconds <= HEARTBEAT for seconds in waits)
    others = len(story.events) - len(waits)
    assert len(waits) <= (story.finished_at - scenario.began) / HEARTBEAT + 2 * others + 2


@LAW
@given(scenarios(st.builds(Limits, **retries), lag=st.just(0.0), parallel=st.just(8)))
def test_nobody_waits_for_longer_than_needed(scenario: Scenario) -> None:
    """With room for all, a run starts as soon as its backoff, the rate and the service allow."""
    story = simulate(scenario)
    limits = scenario.limits
    free, due = scenario.began, {run.trace_id: scenario.began for run in planned_runs(scenario.seeds)}
    for event in story.events:
        if isinstance(event, End):
            attempt = event.attempt
            asked = attempt.retry_after or 0
            free = max(free, event.at + asked)
            if event.trace is None:
                longest = max(longest_backoff(limits, attempt.number), asked + limits.retry_delay)
                due[attempt.planned.trace_id] = event.at + longest
        elif isinstance(event, Start):
            waiting = min(due.values())
            assert event.at <= max(free, waiting) + 1e-6
            del due[event.trace_id]
            free = max(free, event.at + limits.start_gap)


@LAW
@given(scenarios(st.builds(Limits, **retries, max_failures=st.integers(1, 4))))
def test_so_many_failed_runs_stop_the_experiment(scenario: Scenario) -> None:
    """Nothing starts once the last of them is settled, everything does until then; a retried failure is none."""
    story = simulate(scenario)
    limit = scenario.limits.max_failures
    assert limit is not None
    failed = [end for end in story.ends if end.trace is not None and end.trace.status != "ok"]
    if len(failed) >= limit:
        assert story.after(failed[limit - 1]) == []
    if len(story.traces) < len(scenario.seeds):
        assert len(failed) >= limit
        assert str(story.schedule.stop_reason).endswith("(runner.max_failures)")


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(0, 5))
def test_it_stops_when_the_first_runs_have_all_failed(passed: list[bool], limit: int) -> None:
    """After the last of them; one that passed among them keeps it going to the end."""
    schedule = Schedule(planned_runs(range(len(passed))), Limits(stop_when_all_fail=limit))
    count = 0
    while (taken := schedule.take()) is not None:
        schedule.settle(ended(*taken, Outcome() if passed[count] else FAILED))
        count += 1
    stops = 0 < limit < len(passed) and not any(passed[:limit])
    assert count == (limit if stops else len(passed))
    assert schedule.stopping == stops
    assert schedule.finished
    assert (schedule.stop_reason is not None) == stops


@LAW
@given(scenarios(st.builds(Limits, **retries, max_seconds=st.floats(0.1, 5))))
def test_the_time_is_kept(scenario: Scenario) -> None:
    """Nothing starts once it is over, and all is run when it suffices."""
    story = simulate(scenario)
    limit = scenario.limits.max_seconds
    assert limit is not None
    assert all(start.at - scenario.began < limit for start in story.starts)
    if len(story.traces) < len(scenario.seeds):
        assert story.finished_at - scenario.began >= limit
        assert story.schedule.stop_reason == f"{limit:g} s are over (runner.max_time)"


@LAW
@given(scenarios(st.builds(Limits, **retries, grace=stops["grace"]), asked=st.tuples(st.floats(0, 4), st.floats(4, 8))))
def test_an_interrupt_starts_nothing_more(scenario: Scenario) -> None:
    """What is in flight may end within its grace; a second interrupt leaves it."""
    story = simulate(scenario)
    first, second = scenario.asked
    assert all(start.at - scenario.began < first for start in story.starts)
    assert story.schedule.stop_reason is None
    if left := story.schedule.in_flight:
        gone = story.finished_at - scenario.began
        assert gone >= second or gone >= first + scenario.limits.grace
        assert len(left) == len(story.starts) - len(story.ends)


@LAW
@given(to_the_end | stopped)
def test_the_same_experiment_goes_the_same_way(scenario: Scenario) -> None:
    """Chance is the runs' own: the same seeds wait the same time before each retry."""
    assert simulate(scenario).events == simulate(scenario).events


def retry_due(seed: int, limits: Limits, number: int, outcome: Outcome = AGAIN) -> tuple[float, float]:
    """When attempt `number` of a run was settled, and when the next may start, found by looking on."""
    clock = Clock(0.0)
    schedule = Schedule(planned_runs([seed]), limits, clock=clock)
    for _ in range(number - 1):
        taken = schedule.take()
        assert taken
        schedule.settle(ended(*taken, AGAIN))
        clock.now += MAX_DELAY
    taken = schedule.take()
    assert taken
    schedule.settle(ended(*taken, outcome))
    settled = clock.now
    while schedule.due_in:
        clock.now += schedule.due_in
    return settled, clock.now


@LAW
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e300]) | st.floats(0.001, 1e6), st.integers(1, 100))
@example(0, 1.0, 7)
@example(1, 60.0, 1)
def test_backoff_doubles_up_to_a_minute(seed: int, delay: float, number: int) -> None:
    """Between half and the whole of the delay, which doubles with each retry."""
    limits = Limits(max_retries=number, retry_delay=delay)
    settled, due = retry_due(seed, limits, number)
    longest = longest_backoff(limits, number)
    assert settled + longest / 2 <= due <= settled + longest + 1e-6


@LAW
@given(st.integers(0, 2**32 - 1), st.floats(0, 100), st.integers(1, 8), st.floats(0, 86_400))
@example(0, 1.0, 3, 0.0)
@example(0, 1.0, 1, 600.0)
def test_a_retry_waits_for_as_long_as_the_service_asks(seed: int, delay: float, number: int, asked: float) -> None:
    """No less than without, should that be longer, and not all runs to the same moment."""
    limits = Limits(max_retries=number, retry_delay=delay)
    settled, due = retry_due(seed, limits, number, Outcome(status="error", retry=True, retry_after=asked))
    longest = longest_backoff(limits, number)
    assert due >= settled + max(longest / 2, asked)
    assert due <= settled + max(longest, asked + min(delay, MAX_DELAY)) + 1e-6


@pytest.mark.parametrize("asked", [None, 30.0])
def test_retries_of_many_runs_are_spread(asked: float | None) -> None:
    """What failed together does not come back together."""
    outcome = Outcome(status="error", retry=True, retry_after=asked)
    dues = [retry_due(seed, Limits(max_retries=1), 1, outcome)[1] - (asked or 0.5) for seed in range(200)]
    assert len(set(dues)) == 200
    width = max(dues)
    assert all(any(low <= due / width < low + 0.1 for due in dues) for low in (0.0, 0.2, 0.4, 0.6, 0.8))


def test_a_waiting_retry_holds_no_slot() -> None:
    """One at a time, all other runs are done while the first waits."""
    again = [[AGAIN], [], [], []]
    limits = Limits(max_retries=1, retry_delay=10.0)
    story = simulate(Scenario(seeds=[1, 2, 3, 4], outcomes=again, limits=limits, parallel=1, began=0.0, lag=0.0))
    assert [(start.trace_id[-1], start.number) for start in story.starts] == [
        *(("0", 1), ("1", 1), ("2", 1), ("3", 1), ("0", 2))
    ]


def test_a_retry_that_is_due_goes_first() -> None:
    """The one that is due for longest before others, and before runs that have not begun."""
    clock = Clock(0.0)
    schedule = Schedule(planned_runs([1, 2, 3]), Limits(max_retries=1, retry_delay=1.0), clock=clock)
    one, two = schedule.take(), schedule.take()
    assert one
    assert two
    schedule.settle(ended(*two, AGAIN))
    clock.now = 1.0
    schedule.settle(ended(*one, AGAIN))
    clock.now = 10.0
    order = [(planned.trace_id[-1], number) for planned, number in iter(schedule.take, None)]
    assert order == [("1", 2), ("0", 2), ("2", 1)]


@LAW
@given(st.lists(st.integers(1, 1000), unique=True, min_size=2, max_size=30))
def test_retries_come_in_the_order_in_which_they_are_due(waits: list[int]) -> None:
    """However many wait, and whichever of them failed first."""
    clock = Clock(0.0)
    limits = Limits(max_retries=1, retry_delay=1.0)
    schedule = Schedule(planned_runs([*range(len(waits))]), limits, clock=clock)
    for taken, wait in zip([*iter(schedule.take, None)], waits, strict=True):
        schedule.settle(ended(*taken, Outcome(status="error", retry=True, retry_after=float(wait))))
    clock.now = 2000.0
    order = [waits[planned.case.index] for planned, _ in iter(schedule.take, None)]
    assert order == sorted(waits)


@pytest.mark.parametrize("parallel", [1, 7])
def test_a_service_that_is_down_is_not_tried_by_run_after_run(parallel: int) -> None:
    """No run begins while too many retries wait; when it is up again, all runs come to their end."""
    count = MAX_WAITING + 50
    clock = Clock(0.0)
    schedule = Schedule(planned_runs([*range(count)]), Limits(max_retries=2, retry_delay=100.0), clock=clock)
    waiting = 0
    while batch := [taken for _ in range(parallel) if (taken := schedule.take())]:
        assert waiting < MAX_WAITING
        for taken in batch:
            assert schedule.settle(ended(*taken, AGAIN)) is None
            waiting += 1
    assert MAX_WAITING <= waiting < MAX_WAITING + parallel
    assert 0 < schedule.wait_seconds() <= HEARTBEAT
    assert not schedule.finished
    traces = []
    while not schedule.finished:
        clock.now += schedule.due_in
        while taken := schedule.take():
            traces.append(schedule.settle(ended(*taken, Outcome())))
    assert Counter(trace and trace.trace_id for trace in traces) == Counter(
        run.trace_id for run in planned_runs([*range(count)])
    )


def test_a_stop_does_not_wait_for_retries() -> None:
    """A run that waits to be tried again when the experiment stops is not run: no trace tells of it."""
    urgency: Urgency = 0
    schedule = Schedule(planned_runs([1, 2]), Limits(max_retries=3), urgency=lambda: urgency)
    one, two = schedule.take(), schedule.take()
    assert one
    assert two
    assert schedule.settle(ended(*one, AGAIN)) is None
    assert not schedule.finished
    urgency = 1
    assert not schedule.finished
    assert schedule.settle(ended(*two, AGAIN)) is None
    assert schedule.finished


@pytest.mark.parametrize("way", ["grace", "urgency"])
def test_what_is_in_flight_can_be_left(way: str) -> None:
    """Once its grace is over, or by a second interrupt; what comes back all the same is a trace."""
    urgency: Urgency = 0
    clock = Clock(100.0)
    schedule = Schedule(planned_runs([1, 2]), Limits(grace=5.0), clock=clock, urgency=lambda: urgency)
    taken = schedule.take()
    assert taken
    assert schedule.grace_left == math.inf
    urgency = 1
    clock.now = 103.0
    assert schedule.stopping
    clock.now = 107.0
    assert (schedule.finished, schedule.is_over, schedule.grace_left) == (False, False, 1.0)
    if way == "grace":
        clock.now = 108.0
    else:
        urgency = 2
    assert schedule.finished
    assert schedule.is_over
    assert schedule.in_flight == [(*taken, clock.now - 100.0)]
    assert schedule.settle(ended(*taken, Outcome()))
    assert schedule.in_flight == []


@pytest.mark.parametrize("limits", [Limits(max_failures=1), Limits(stop_when_all_fail=1), Limits(max_seconds=5.0)])
def test_what_is_done_was_not_stopped(limits: Limits) -> None:
    """A limit reached when nothing is left stops nothing."""
    clock = Clock(0.0)
    schedule = Schedule(planned_runs([1]), limits, clock=clock)
    taken = schedule.take()
    assert taken
    clock.now = 4.0
    schedule.settle(ended(*taken, FAILED))
    clock.now = 6.0
    assert schedule.finished
    assert not schedule.stopping
    assert schedule.stop_reason is None


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        (Limits(max_failures=1), "1 failed run (runner.max_failures)"),
        (Limits(max_failures=2), "2 failed runs (runner.max_failures)"),
        (Limits(stop_when_all_fail=1), "the first run has failed (runner.stop_when_all_fail)"),
        (Limits(stop_when_all_fail=2), "the first 2 runs have all failed (runner.stop_when_all_fail)"),
    ],
)
def test_the_reason_of_a_stop(limits: Limits, told: str) -> None:
    """Names the limit and the setting."""
    schedule = Schedule(planned_runs([1, 2, 3]), limits)
    for _ in range(limits.max_failures or limits.stop_when_all_fail):
        taken = schedule.take()
        assert taken
        schedule.settle(ended(*taken, FAILED))
    assert schedule.take() is None
    assert schedule.stop_reason == told


def test_a_pause_is_told() -> None:
    """For how long nothing starts; a shorter one asked for later ends no earlier."""
    clock = Clock(0.0)
    schedule = Schedule(planned_runs([1, 2, 3]), clock=clock)
    one, two = schedule.take(), schedule.take()
    assert one
    assert two
    assert schedule.paused_for == 0
    schedule.settle(ended(*one, Outcome(status="error", retry_after=30.0)))
    clock.now = 10.0
    schedule.settle(ended(*two, Outcome(status="error", retry_after=5.0)))
    assert (schedule.paused_for, schedule.due_in) == (20.0, 20.0)
    clock.now = 30.0
    assert schedule.paused_for == 0
    assert schedule.take() is not None
    assert schedule.due_in == math.inf


class AnyOrder(RuleBasedStateMachine):
    """Whatever is asked, and in whatever order, the schedule does what its limits say."""

    @initialize(
        count=st.integers(0, 6),
        limits=st.builds(Limits, **retries, **stops),
        began=st.sampled_from([0.0, 12_345.678]),
    )
    def begin(self, count: int, limits: Limits, began: float) -> None:
        self.clock = Clock(began)
        self.began = began
        self.limits = limits
        self.urgency: Urgency = 0
        self.new = planned_runs([*range(count)])
        self.schedule = Schedule(self.new.copy(), limits, clock=self.clock, urgency=lambda: self.urgency)
        self.flying: list[tuple[PlannedRun, int]] = []
        self.outcomes: dict[str, list[Outcome]] = {}
        """How the attempts at each run went so far."""
        self.waiting: dict[str, tuple[float, float, int]] = {}
        self.failures = self.at_first = 0
        self.passed = False
        self.free = -math.inf
        self.stopped: float | None = None

    @rule(seconds=st.sampled_from([1e-9, HEARTBEAT, 60.0]) | spans)
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def wait_as_told(self) -> None:
        self.clock.now += self.schedule.wait_seconds()

    @precondition(lambda self: self.urgency < 2)
    @rule()
    def interrupt(self) -> None:
        self.urgency = 1 if self.urgency == 0 else 2

    @rule()
    def take(self) -> None:
        now = self.clock.now
        blocked = self.stopped is not None or now < self.free
        surely = [trace_id for trace_id, (_, latest, _) in self.waiting.items() if latest <= now]
        taken = self.schedule.take()
        if taken is None:
            assert blocked or not (surely or self.new)
            assert 0 < self.schedule.wait_seconds() <= HEARTBEAT
            return
        assert not blocked
        planned, number = taken
        if number == 1:
            assert not surely
            assert planned == self.new.pop(0)
        else:
            earliest, _, last = self.waiting.pop(planned.trace_id)
            assert earliest <= now
            assert number == last + 1
            assert all(latest >= earliest for _, latest, _ in self.waiting.values())
        self.free = max(self.free, now + self.limits.start_gap)
        self.flying.append(taken)

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), outcome=outcomes)
    def settle(self, data: st.DataObject, outcome: Outcome) -> None:
        self.end(data.draw(st.integers(0, len(self.flying) - 1)), outcome)

    def end(self, index: int, outcome: Outcome) -> None:
        planned, number = self.flying.pop(index)
        now = self.clock.now
        trace = self.schedule.settle(ended(planned, number, outcome))
        asked = outcome.retry_after or 0.0
        self.free = max(self.free, now + asked)
        outcomes = self.outcomes.setdefault(planned.trace_id, [])
        outcomes.append(outcome)
        if is_retried(self.limits, outcomes):
            assert trace is None
            longest = longest_backoff(self.limits, number)
            latest = now + max(longest, asked + self.limits.retry_delay)
            self.waiting[planned.trace_id] = (now + max(longest / 2, asked), latest, number)
        else:
            assert trace is not None
            self.failures += outcome.status != "ok"
            self.passed = self.passed or outcome.status == "ok"
            self.at_first += not self.passed

    @invariant()
    def it_says_how_things_are(self) -> None:
        now = self.clock.now
        left = bool(self.new or self.waiting or self.flying)
        limits = self.limits
        over = limits.max_failures is not None and self.failures >= limits.max_failures
        over = over or 0 < limits.stop_when_all_fail <= self.at_first
        over = over or (limits.max_seconds is not None and now - self.began >= limits.max_seconds)
        if self.stopped is None and (self.urgency or (over and left)):
            self.stopped = now
        assert self.schedule.stopping == (self.stopped is not None)
        assert 0 <= self.schedule.wait_seconds() <= HEARTBEAT
        assert [taken[:2] for taken in self.schedule.in_flight] == self.flying
        if self.stopped is None:
            assert self.schedule.finished == (not left)
            assert not self.schedule.is_over
        else:
            assert self.schedule.is_over == (self.urgency == 2 or now >= self.stopped + limits.grace)
            assert self.schedule.finished == (not self.flying or self.schedule.is_over)
        if self.schedule.finished:
            assert self.schedule.take() is None

    def teardown(self) -> None:
        """Whatever has happened, it comes to its end."""
        if not hasattr(self, "schedule"):
            return
        for _ in range(10_000):
            self.it_says_how_things_are()
            if self.schedule.finished:
                return
            self.take()
            while self.flying:
                self.end(0, Outcome())
            self.wait_as_told()
        raise AssertionError("it does not end")


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


def test_only_an_overload_asks_everyone_to_wait() -> None:
    """A `Retry-After` of another status is for the run that got it."""
    schedule = Schedule(planned_runs([0, 1, 2]), Limits(max_retries=1), clock=(clock := Clock(0.0)))
    first = schedule.take()
    assert first is not None
    failed = ended(*first, Outcome(status="error", retry=True, retry_after=30.0))
    failed.is_overload = False
    schedule.settle(failed)
    assert schedule.take() is not None
    clock.now = 29.9
    assert schedule.paused_for == 0
    schedule.take()
    assert schedule.take() is None
