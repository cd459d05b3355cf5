"""What an experiment ran on."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from pathlib import Path
from typing import Any

import fluxloop

_GIT_SECONDS = 5.0

RAN_ON = ("fluxloop", "python", "platform", "git")
"""What `ran_on` tells."""


def ran_on(root: Path, results: Path) -> dict[str, Any]:
    """Return versions, the platform, and the state of the git repository `root` is in.

    Args:
        root: the project root.
        results: a folder whose files do not make the tree unclean.
    """
    return {
        "fluxloop": fluxloop.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": git_state(root, results),
    }


def git_state(root: Path, results: Path) -> dict[str, Any] | None:
    """Return commit, whether the tree was clean, and a digest of the difference; None without git."""
    top = next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), None)
    if top is None:
        return None
    commit = _git(root, "rev-parse", "HEAD")
    ours = [f":(exclude,literal){results}"] if results.is_relative_to(top) and results != top else []
    status = _git(root, "--no-optional-locks", "status", "--porcelain", "--", ":/", *ours)
    if commit is None or status is None:
        return None
    difference = (_git(root, "diff", "HEAD", "--", ":/", *ours) or b"") if status else b""
    return {
        "commit": commit.decode().strip(),
        "clean": not status,
        "diff_digest": hashlib.blake2b(status + difference, digest_size=16).hexdigest() if status else None,
    }


def _git(root: Path, *arguments: str) -> bytes | None:
    try:
        done = subprocess.run(
            ["git", "-c", "core.fsmonitor=false", *arguments],
            cwd=root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
