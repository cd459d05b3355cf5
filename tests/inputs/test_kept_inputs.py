"""Where checked inputs are kept."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def test_a_full_temporary_folder_is_told(tmp_path: Path) -> None:
    """Where the inputs cannot be kept, the message names the folder and the way out."""
    (tmp_path / "in.jsonl").write_text('{"input": "a text of some length"}\n' * 1000)
    code = (
        "import resource, signal\n"
        "from pathlib import Path\n"
        "from fluxloop import InputError\n"
        "from fluxloop.inputs.cases import inputs_from\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    inputs_from(Path('in.jsonl'))\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.fullmatch(
        r"in\.jsonl: cannot be kept in /.*: File too large; set TMPDIR to a roomier folder\n", done.stdout
    )
