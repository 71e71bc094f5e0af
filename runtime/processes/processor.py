"""Names of the processor and the board, as the kernel reports them."""

from __future__ import annotations

import re
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
BOARD = Path("/proc/device-tree/model")

_CORES = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0a"): "Cortex-A75",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd0e"): "Cortex-A76AE",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x4e", "0x003"): "Denver 2",
    ("0x4e", "0x004"): "Carmel",
}
"""ARM cores by implementer and part; an unknown core is shown as these two numbers."""


def processor(cpuinfo: Path = CPUINFO) -> str:
    """Return the kinds of cores, such as `AMD EPYC` or `Cortex-A53 + Cortex-A72`; `unknown` if not reported."""
    kinds = {_kind(core) for core in _cores(cpuinfo)} - {None}
    return " + ".join(sorted(map(str, kinds))) or "unknown"


def board(model: Path = BOARD) -> str:
    """Return the board's model without its revision, which does not affect results; `unknown` on a PC."""
    name = board_name(model)
    return "unknown" if name is None else re.sub(r" Rev [\d.]+$", "", name)


def board_name(model: Path = BOARD) -> str | None:
    """Return the board's name in its device tree; None if it has no device tree."""
    return model.read_text().rstrip("\0") if model.is_file() else None


def has_large_atomics(cpuinfo: Path = CPUINFO) -> bool:
    """Return whether an ARM processor has the atomic instructions of ARMv8.1 (LSE)."""
    return any("atomics" in core.get("Features", "").split() for core in _cores(cpuinfo))


def _cores(cpuinfo: Path) -> list[dict[str, str]]:
    """Return the fields `Name : value` of each logical processor."""
    blocks = cpuinfo.read_text().split("\n\n")
    lines = [[line.partition(":") for line in block.splitlines()] for block in blocks]
    return [{name.strip(): value.strip() for name, _, value in block} for block in lines]


def _kind(core: dict[str, str]) -> str | None:
    # Checked first: some ARM kernels also give all cores the same "model name", "ARMv8 Processor rev 1 (v8l)".
    if "CPU part" in core:
        part = core["CPU implementer"], core["CPU part"]
        return _CORES.get(part, "/".join(part))
    return core.get("model name")
