"""`python -m fluxloop_cli`."""

from __future__ import annotations

from fluxloop_cli.entry import main

main()
