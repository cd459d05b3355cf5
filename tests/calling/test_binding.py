"""Which argument of the target each thing becomes."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxloop import Case, Experiment, InputError, TargetError
from fluxloop.calling.binding import INPUT_NAMES, Binding, bind
from fluxloop.calling.frameworks import Conventions
from fluxloop.calling.target import Target
from fluxloop.records import PlannedRun
from fluxloop.testing import run_once
from fluxloop.tracing.context import OpenRun


def binding_of(
    function: Any, args: dict[str, Any] | None = None, inject: tuple[str, ...] = (), input_template: Any = None
) -> Binding:
    return bind(Target.of(function), args=args or {}, inject=inject, input_template=input_template, known=Conventions())


def called_with(function: Any, input: Any, **options: Any) -> Any:
    """Return what the function returned, when called as a run calls it."""
    trace = run_once(function, input, **options)
    assert trace.error is None, trace.error
    return trace.output


def agent_with(*names: str) -> Any:
    """Make a function with these parameters, which returns them."""
    space: dict[str, Any] = {}
    exec(f"def agent({', '.join(f'{name}=None' for name in names)}): return locals()", space)
    return space["agent"]


# Where the input goes


@given(st.permutations([*INPUT_NAMES, "other", "more"]), st.integers(1, 11))
def test_the_input_goes_to_the_first_name_of_the_list(names: list[str], count: int) -> None:
    """Wherever they stand in the signature, the earliest of the known names gets the input, else the first."""
    names = names[:count]
    known = [name for name in INPUT_NAMES if name in names]
    assert binding_of(agent_with(*names)).input_name == (known[0] if known else names[0])


def test_the_first_parameter_gets_an_input_of_no_known_name() -> None:
    """Without a known name the first parameter is the input's, positional-only and *args by position."""

    def keyword_only(*, thing: str, **rest: Any) -> Any:
        return thing, rest

    assert called_with(lambda a, b=1: [a, b], "hi") == ["hi", 1]
    assert called_with(lambda a, /, b=1: [a, b], "hi") == ["hi", 1]
    assert called_with(lambda *args: list(args), "hi") == ["hi"]
    assert called_with(lambda *args, **kwargs: [list(args), kwargs], "hi") == [["hi"], {}]
    assert called_with(keyword_only, "hi") == ["hi", {}]
    assert called_with(lambda a, *rest: [a, list(rest)], "hi") == ["hi", []]


def test_a_known_name_goes_before_the_first_parameter() -> None:
    """`question` is the input's even behind others, also as a keyword-only parameter."""
    assert called_with(lambda model="m", question=None: [model, question], "hi") == ["m", "hi"]
    assert called_with(lambda *args, query: [list(args), query], "hi") == [[], "hi"]


def test_a_positional_only_parameter_is_not_taken_by_its_name() -> None:
    """A known name that cannot be given by keyword has no precedence, but may be the first parameter."""
    assert called_with(lambda question, /, b=1: [question, b], "hi") == ["hi", 1]


def test_a_constant_is_not_the_inputs() -> None:
    """A parameter given by args or inject is taken; the input goes to the next."""
    assert called_with(lambda text, query: [text, query], "hi", args={"query": 1}) == ["hi", 1]
    assert called_with(lambda persona, x: [persona, x], "hi", inject=["persona"], persona="p") == ["p", "hi"]


@pytest.mark.parametrize("value", [0, False, "", None, 1.5, [], {}, ["a"], [{"a": 1}]])
def test_any_json_value_is_an_input(value: Any) -> None:
    """Empty and false values are passed as they are."""
    assert called_with(lambda anything: [anything], value) == [value]


# Mappings


def test_a_mapping_that_fits_is_spread() -> None:
    """It covers all required parameters and holds no other keys."""

    def agent(question: str, style: str = "plain", *, depth: int = 1) -> Any:
        return [question, style, depth]

    assert called_with(agent, {"question": "q"}) == ["q", "plain", 1]
    assert called_with(agent, {"question": "q", "depth": 2}) == ["q", "plain", 2]
    assert called_with(agent, {"depth": 2}) == [{"depth": 2}, "plain", 1]
    assert called_with(agent, {"question": "q", "other": 2}) == [{"question": "q", "other": 2}, "plain", 1]
    assert called_with(lambda state: state, {"state": 1}) == 1
    assert called_with(lambda **kwargs: kwargs, {"a": 1, "b": 2}) == {"a": 1, "b": 2}
    assert called_with(lambda a, **kwargs: [a, kwargs], {"a": 1, "b": 2}) == [1, {"b": 2}]
    assert called_with(lambda a, **kwargs: [a, kwargs], {"b": 2}) == [{"b": 2}, {}]


def test_a_mapping_is_passed_whole_where_spreading_cannot_work() -> None:
    """Positional-only parameters, keys that are no text and an empty mapping keep it whole."""
    assert called_with(lambda a, /, **kwargs: [a, kwargs], {"a": 1}) == [{"a": 1}, {}]
    assert called_with(lambda a=0: a, {1: 2}) == {"1": 2}
    assert called_with(lambda a=0: a, {}) == {}
    assert called_with(lambda *args: list(args), {"args": 1}) == [{"args": 1}]


def test_constants_and_spread_mappings_meet() -> None:
    """Args count as given for what a mapping must cover, and go before the mapping's own."""

    def agent(question: str, model: str) -> Any:
        return [question, model]

    assert called_with(agent, {"question": "q"}, args={"model": "m"}) == ["q", "m"]
    assert called_with(agent, {"question": "q", "model": "x"}, args={"model": "m"}) == [
        {"question": "q", "model": "x"},
        "m",
    ]
    assert called_with(lambda **kwargs: kwargs, {"model": "x", "a": 1}, args={"model": "m"}) == {"model": "m", "a": 1}


@given(
    st.lists(st.sampled_from("abcdef"), unique=True, min_size=1),
    st.integers(0, 6),
    st.dictionaries(st.sampled_from("abcdefg"), st.integers()),
)
def test_spreading_is_what_python_accepts(names: list[str], required: int, value: dict[str, int]) -> None:
    """A mapping is spread exactly when Python would take it as keyword arguments."""
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if index < required else 0,
        )
        for index, name in enumerate(names)
    ]

    def agent(**kwargs: Any) -> None: ...

    agent.__signature__ = signature = inspect.Signature(parameters)  # type: ignore[attr-defined]
    try:
        signature.bind(**value)
        fits = bool(value)
    except TypeError:
        fits = False
    binding = binding_of(agent)
    args, kwargs = binding.arguments(Case(0, "i", value), OpenRun(PlannedRun("t", Case(0, "i", value), 0, 0), 1, 0))
    assert args == ()
    assert kwargs == (value if fits else {binding.input_name: value})


# Constants and injected values


def test_args_and_inject_are_passed_by_name() -> None:
    """Constants come from args; persona, iteration, metadata and expected when listed."""

    def agent(question: str, model: str, persona: str, iteration: int, metadata: Any, expected: Any) -> Any:
        return [question, model, persona, iteration, metadata, expected]

    output = called_with(
        agent,
        "hi",
        args={"model": "m"},
        inject=["persona", "iteration", "metadata", "expected"],
        persona="novice",
        iteration=2,
        metadata={"k": 1},
        expected=["e"],
    )
    assert output == ["hi", "m", "novice", 2, {"k": 1}, ["e"]]


def test_without_inject_nothing_but_the_input_is_passed() -> None:
    """A parameter called persona keeps its default unless it is listed."""
    assert called_with(lambda question, persona="nobody": persona, "hi", persona="novice") == "nobody"


def test_injected_values_are_the_runs_own() -> None:
    """An agent that changes metadata or expected changes them for itself only."""
    seen = []

    def agent(question: str, metadata: dict[str, Any], expected: list[Any]) -> None:
        seen.append((list(metadata), list(expected)))
        metadata["more"] = 1
        expected.append("more")

    metadata, expected = {"k": [1]}, ["e"]
    for _ in range(2):
        run_once(agent, "hi", metadata=metadata, expected=expected, inject=["metadata", "expected"])
    case = Case(0, "i", "hi", None, expected, metadata)
    binding = binding_of(agent, inject=("metadata", "expected"))
    for iteration in range(2):
        args, kwargs = binding.arguments(case, OpenRun(PlannedRun("t", case, iteration, 0), 1, 0))
        agent(*args, **kwargs)
    assert seen == [(["k"], ["e"])] * 4


def test_run_id_is_fresh_for_each_attempt(tmp_path: Any) -> None:
    """`{run_id}` anywhere in args is the attempt's own id, alike within it and never twice."""

    def agent(question: str, config: dict[str, Any], thread: str) -> Any:
        return [config["configurable"]["ids"], thread]

    result = Experiment(
        target=agent,
        inputs=["a", "b"],
        iterations=3,
        output_dir=tmp_path,
        overrides={"runner.args": {"config": {"configurable": {"ids": ["{run_id}"]}}, "thread": "user-{run_id}"}},
    ).run()
    outputs = [trace.output for trace in result]
    assert len({ids[0] for ids, _ in outputs}) == 6
    assert all(thread == f"user-{ids[0]}" for ids, thread in outputs)

    case = Case(0, "i", "hi")
    binding = binding_of(lambda text, thread: thread, args={"thread": "{run_id}"})
    planned = PlannedRun("t", case, 0, 0)
    first, second = (binding.arguments(case, OpenRun(planned, number, 0))[1]["thread"] for number in (1, 2))
    assert first != second


def test_constants_are_copied_for_each_run(tmp_path: Any) -> None:
    """An agent that fills a list it was given as a constant finds it empty in its next run."""

    def agent(question: str, memory: list[str], options: dict[str, Any]) -> int:
        memory.append(question)
        options["seen"].append(question)
        return len(memory) + len(options["seen"])

    result = Experiment(
        target=agent,
        inputs=["a", "b"],
        iterations=2,
        output_dir=tmp_path,
        overrides={"runner.args": {"memory": [], "options": {"seen": []}}},
    ).run()
    assert [trace.output for trace in result] == [2, 2, 2, 2]


@pytest.mark.parametrize("template", [None, {"state": "{input}", "log": []}])
def test_the_input_is_copied_for_each_run(tmp_path: Any, template: Any) -> None:
    """An agent that changes its input changes neither the next iteration's nor what is recorded."""

    def agent(given: Any, log: Any = None, state: Any = None) -> Any:
        given = given if state is None else state
        given["items"].append("more")
        given["new"] = 1
        return len(given["items"])

    if template is not None:

        def shaped(state: Any, log: list[Any]) -> Any:
            log.append(1)
            return [agent(None, state=state), len(log)]

    result = Experiment(
        target=agent if template is None else shaped,
        inputs=[{"input": {"items": ["one"]}}],
        iterations=3,
        output_dir=tmp_path,
        overrides={"runner.input_template": template} if template else None,
    ).run()
    assert [trace.output for trace in result] == ([2, 2, 2] if template is None else [[2, 1]] * 3)
    assert [trace.input for trace in result] == [{"items": ["one"]}] * 3


# Templates


def test_the_template_shapes_what_is_passed() -> None:
    """The input is put into the template, and the result is spread or passed like any input."""
    template = {"messages": [{"role": "user", "content": "{input}"}], "thread": "{run_id}"}
    output = called_with(lambda state: state, "hi", input_template=template)
    assert output["messages"] == [{"role": "user", "content": "hi"}]
    assert len(output["thread"]) == 36
    assert called_with(lambda messages, thread: messages, "hi", input_template=template)[0]["content"] == "hi"
    assert called_with(lambda text: text, {"a": 1}, input_template="Say {input}!") == 'Say {"a":1}!'


def test_a_template_without_the_input_is_refused() -> None:
    """A misspelt placeholder would give every run the same constant."""
    with pytest.raises(TargetError, match=r"runner\.input_template: \{input\} does not occur in it"):
        binding_of(lambda text: text, input_template={"question": "{inputt}"})


# What cannot be bound


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"args": {"modle": 1}}, "runner.args.modle: .*agent has no parameter 'modle'; did you mean 'model'"),
        ({"args": {"zzz": 1}}, "runner.args.zzz: .* has no parameter 'zzz'; it has model, question"),
        ({"inject": ["persona"]}, "runner.inject: persona: .* has no parameter 'persona'"),
    ],
)
def test_an_argument_without_parameter_is_refused(options: dict[str, Any], told: str) -> None:
    """The message names the key of the configuration and what the target has."""

    def agent(question: str, model: str = "m") -> None: ...

    with pytest.raises(TargetError, match=told):
        run_once(agent, "hi", **options)


def test_a_target_without_parameters_has_none_to_suggest() -> None:
    """The message says so."""
    with pytest.raises(TargetError, match="it has none"):
        run_once(lambda: 1, "hi", args={"a": 1})


def test_any_keyword_takes_any_constant() -> None:
    """With **kwargs, and beside a positional-only parameter of the same name, every constant is passed."""
    assert called_with(lambda q, **kwargs: kwargs, "hi", args={"a": 1}, inject=["iteration"]) == {
        "a": 1,
        "iteration": 0,
    }
    assert called_with(lambda a, /, **kwargs: [a, kwargs], "hi", args={"a": 1}) == ["hi", {"a": 1}]


@pytest.mark.parametrize(
    ("agent", "told"),
    [
        (lambda: 1, "takes no argument for the input"),
        (lambda question, user: 1, "also needs user; give it in runner.args, list it in runner.inject"),
        (lambda question, user, *, key: 1, "also needs user, key;"),
        (lambda first, /, question: 1, "also needs first;"),
    ],
)
def test_an_input_that_cannot_be_bound_stops_before_the_first_run(agent: Any, told: str, tmp_path: Any) -> None:
    """The message says what is missing and the three ways to give it; nothing is left behind."""
    with pytest.raises(InputError, match=told):
        Experiment(target=agent, inputs=["hi"], output_dir=tmp_path).run()
    assert list(tmp_path.iterdir()) == []


def test_a_mapping_may_give_what_a_text_cannot() -> None:
    """Required parameters that no constant gives are no problem of an input that has them."""
    binding = binding_of(lambda question, user: 1)
    assert binding.problem(Case(0, "i", {"question": "q", "user": "u"})) is None
    assert "also needs user" in str(binding.problem(Case(0, "i", "q")))
    assert binding_of(lambda: 1, args={}).problem(Case(0, "i", {"a": 1})) is not None
    assert binding_of(lambda **kwargs: 1).problem(Case(0, "i", {"a": 1})) is None
    assert binding_of(lambda **kwargs: 1).problem(Case(0, "i", "text")) is not None


def test_a_binding_can_be_read() -> None:
    """The text of `--dry-run` says where each thing goes."""

    def agent(a: int, question: str, persona: str) -> None: ...

    binding = binding_of(agent, args={"a": 1}, inject=("persona",), input_template="Q: {input}")
    told = binding.told(Case(0, "a", "hi"))
    assert told == "input → question (shaped by input_template), a ← runner.args, persona ← the persona of the run"
    assert binding_of(lambda *args: 1).told(Case(0, "a", "hi")) == "input → the first argument"
    assert binding_of(lambda x, y: 1).told(Case(0, "a", {"x": 1, "y": 2})) == "input → x, y"


def test_a_mapping_with_an_odd_key_is_told_by_it() -> None:
    """The key that keeps a mapping from being spread is named."""
    problem = binding_of(lambda context, question: 1).problem(Case(0, "a", {"context": 1, "questoin": 2}))
    assert problem is not None
    assert problem.endswith("also needs context; the input is not spread, for 'questoin' is no parameter of it")


def test_a_mapping_argument_keeps_what_the_framework_needs_beside_it() -> None:
    """A setting given in `config` stands beside the conventional thread id, and wins where both say something."""
    known = Conventions(args={"config": {"configurable": {"thread_id": "{run_id}"}, "tags": ["a"]}})

    def invoke(input: str, config: object = None) -> None: ...

    bound = bind(
        Target.of(invoke),
        args={"config": {"recursion_limit": 5, "tags": ["b"]}},
        inject=(),
        input_template=None,
        known=known,
    )
    assert bound.args == {"config": {"configurable": {"thread_id": "{run_id}"}, "tags": ["b"], "recursion_limit": 5}}
