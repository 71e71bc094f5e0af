"""What /proc/cpuinfo and the device tree say, as boards and a PC have them."""

from __future__ import annotations

import pytest

from edge_trgl.runtime.processes import processor

ARM = """\
processor\t: {number}
BogoMIPS\t: {mips}
Features\t: {features}
CPU implementer\t: {implementer}
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 3

"""
V8 = "fp asimd evtstrm crc32 cpuid"
V82 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"


def arm(*parts, features=V8, implementer="0x41"):
    """Of an ARM board with a core of each of `parts`."""
    fields = {"features": features, "implementer": implementer, "mips": "108.00"}
    return "".join(ARM.format(number=number, part=part, **fields) for number, part in enumerate(parts))


RASPBERRY_PI_4 = f"{arm('0xd08', '0xd08')}Hardware\t: BCM2835\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n"
RASPBERRY_PI_5 = arm("0xd0b", "0xd0b", features=V82)
PC = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel\t\t: 1\nmodel name\t: AMD EPYC\nflags\t\t: fpu\n\n" * 2


@pytest.fixture
def cpuinfo(tmp_path):
    def write(text):
        path = tmp_path / "cpuinfo"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RASPBERRY_PI_4, "Cortex-A72"),
        (RASPBERRY_PI_5, "Cortex-A76"),
        (arm("0xd03", "0xd03", "0xd08"), "Cortex-A53 + Cortex-A72"),
        (arm("0x004", implementer="0x4e"), "Carmel"),
        (arm("0xd4f"), "0x41/0xd4f"),
        # L4T adds a name that says nothing.
        (arm("0xd42").replace("BogoMIPS", "model name\t: ARMv8 Processor rev 1 (v8l)\nBogoMIPS"), "Cortex-A78AE"),
        (PC, "AMD EPYC"),
        ("processor\t: 0\nhart\t\t: 1\nisa\t\t: rv64imafdc\n", "unknown"),
    ],
)
def test_the_processor_is_named_by_its_cores(cpuinfo, text, expected):
    assert processor.processor(cpuinfo(text)) == expected


@pytest.mark.parametrize(("text", "expected"), [(RASPBERRY_PI_4, False), (RASPBERRY_PI_5, True), (PC, False)])
def test_large_atomics_are_a_feature(cpuinfo, text, expected):
    assert processor.has_large_atomics(cpuinfo(text)) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Raspberry Pi 4 Model B Rev 1.4\0", "Raspberry Pi 4 Model B"),
        ("NVIDIA Jetson Orin Nano Developer Kit\0", "NVIDIA Jetson Orin Nano Developer Kit"),
    ],
)
def test_a_board_is_its_model_whatever_its_revision(tmp_path, text, expected):
    path = tmp_path / "model"
    path.write_text(text)
    assert processor.board_name(path) == text.rstrip("\0")
    assert processor.board(path) == expected


def test_a_pc_is_no_board(tmp_path):
    assert processor.board_name(tmp_path / "none") is None
    assert processor.board(tmp_path / "none") == "unknown"
