"""Records to JSON and back."""

from __future__ import annotations

import msgspec

from fluxloop.records import Observation, Trace, TraceSummary

encode = msgspec.json.Encoder().encode
decode_observation = msgspec.json.Decoder(Observation).decode
decode_trace = msgspec.json.Decoder(Trace).decode
decode_trace_summary = msgspec.json.Decoder(TraceSummary).decode
