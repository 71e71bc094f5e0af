"""What a tool leaves in its runs folder."""

from __future__ import annotations

from pathlib import Path


def left_runs(folder: Path) -> list[Path]:
    """Return what is in the runs folder below `folder`, without prepared data, which stay for the next run."""
    return [path for path in (folder / "runs").iterdir() if path.name != ".prepared"]
