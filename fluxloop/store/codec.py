"""Records to JSON and back."""

from __future__ import annotations

import msgspec

from fluxloop.records import Trace, TraceSummary

encode = msgspec.json.Encoder().encode
decode_trace = msgspec.json.Decoder(Trace).decode
decode_trace_summary = msgspec.json.Decoder(TraceSummary).decode
