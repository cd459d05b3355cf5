"""Records as lines of the files."""

from __future__ import annotations

import attrs
import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fluxloop.records import Observation, ObservedError, RunError, Trace, Usage
from fluxloop.store.codec import decode_trace, encode, encode_run

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
errors = st.builds(RunError, st.just("agent"), st.text(), st.text(), st.none() | st.text())
observations = st.builds(
    Observation,
    *(st.text(), st.text(), st.none() | st.text(), st.integers(1, 9), st.sampled_from(["tool", "generation"])),
    *(st.text(), st.text(), st.none() | st.text(), st.none() | st.floats(0, 1e9), plain, plain),
    *(st.none() | st.builds(ObservedError, st.text(), st.text()), st.none() | st.text()),
    *(st.none() | st.builds(Usage, st.none() | st.integers(0, 99), st.integers(0, 99)), plain),
)
traces = st.builds(
    Trace,
    *(st.text(), st.text(), st.integers(0, 99), st.integers(0, 99), st.none() | st.text(), plain, plain),
    *(st.sampled_from(["ok", "error", "timeout", "crashed"]), st.booleans(), st.none() | errors, st.floats(0, 1e9)),
    *(st.text(), st.integers(1, 9), st.integers(0, 2**32 - 1), st.integers(0, 9), st.none(), st.text()),
    *(st.floats(0, 1e9), st.none() | st.dictionaries(st.text(), plain, max_size=3), plain),
    *(st.lists(errors, max_size=2).map(tuple), st.none() | st.text(), st.none() | st.text()),
    st.lists(observations, max_size=3).map(tuple),
)


@given(traces)
def test_the_lines_of_a_run_are_its_records(trace: Trace) -> None:
    """Byte by byte, though each value is encoded once; an observation reads the same in both of its places."""
    lines, whole, short = encode_run(trace)
    assert lines == b"".join(encode(one) + b"\n" for one in trace.observations)
    assert whole == encode(trace) + b"\n"
    assert short == encode(trace.summary()) + b"\n"
    raw = msgspec.json.decode(whole, type=dict[str, msgspec.Raw])["observations"]
    assert [bytes(one) + b"\n" for one in msgspec.json.decode(raw, type=list[msgspec.Raw])] == lines.splitlines(True)
    assert decode_trace(whole) == trace


@given(observations)
def test_a_copy_has_every_field(observation: Observation) -> None:
    """Also those added later."""
    copied = observation.copy()
    assert copied == observation
    assert copied is not observation
    assert list(vars(copied)) == [field.name for field in attrs.fields(Observation)]
