"""Announce what `make venv` downloads if that is more than 1 GB. Needs the standard library alone.

    python -m tools.install.download_notice

Run by the new environment's Python, before anything is in it. A dry run of pip would know, but older ones download
every file to read what it needs; so this is looked up in tools/results/download_sizes.json.
"""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

SIZES = Path(__file__).parents[1] / "results/download_sizes.json"
LARGE_MB = 1000


def main() -> int:
    text = notice(platform.machine(), f"{sys.version_info.major}.{sys.version_info.minor}")
    if text and not _torch_is_there():
        print(text, flush=True)
    return 0


def _torch_is_there() -> bool:
    try:
        return bool(version("torch"))
    except PackageNotFoundError:
        return False


def notice(machine: str, python: str) -> str:
    """What to say; nothing where little is downloaded, or the size is not known."""
    rows = {(row["machine"], row["python"]): row for row in json.loads(SIZES.read_text())["rows"]}
    row = rows.get((machine, python)) or rows.get((machine, "3.13"))
    if row is None or row["developing_mb"] <= LARGE_MB:
        return ""
    return (
        f"Up to {row['developing_mb'] / 1000:.1f} GB will be downloaded: "
        "torch brings CUDA here, unless pip is set up to find its CPU build.\n"
        "make venv TORCH=cpu takes that from PyTorch's own index, about 0.4 GB in all. Ctrl-C stops this."
    )


if __name__ == "__main__":
    sys.exit(main())
