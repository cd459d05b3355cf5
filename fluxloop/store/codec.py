"""Records to JSON and back."""

from __future__ import annotations

from typing import Any

import msgspec

from fluxloop.records import Observation, Trace, TraceSummary

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What comes of a text that is no such record: no JSON, another shape, no UTF-8, or nested too deeply."""

encode = msgspec.json.Encoder().encode
decode_observation = msgspec.json.Decoder(Observation).decode
decode_trace = msgspec.json.Decoder(Trace).decode
decode_trace_summary = msgspec.json.Decoder(TraceSummary).decode


def encode_run(trace: Trace) -> tuple[bytes, bytes, bytes]:
    """Return the lines of a run in `observations.jsonl`, `traces.jsonl` and `trace_summary.jsonl`.

    An observation is the same bytes in both of its places, and the short form begins the long one.
    """
    observations = [encode(one) for one in trace.observations]
    summary: Any = trace.summary()
    short = begun = encode(summary)
    if trace.error is not None:
        summary.error = trace.error  # with its traceback
        begun = encode(summary)
    rest = {
        "end_time": trace.end_time,
        "total_ms": trace.total_ms,
        "metadata": trace.metadata,
        "expected": trace.expected,
        "errors": trace.errors,
        "stdout": trace.stdout,
        "stderr": trace.stderr,
    }
    whole = (begun[:-1], b",", encode(rest)[1:-1], b',"observations":[', b",".join(observations), b"]}\n")
    return b"\n".join([*observations, b""]), b"".join(whole), short + b"\n"
