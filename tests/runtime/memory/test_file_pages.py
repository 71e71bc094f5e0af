import ctypes
import mmap
import subprocess
import sys

import pytest

from edge_trgl.runtime.memory import file_pages
from edge_trgl.runtime.memory.file_pages import clean_mappings, give_back
from edge_trgl.runtime.memory.without import WITHOUT


def smaps(head="1000-3000 r-xp 00000000 fe:00 42 /usr/lib/lib.so", **kb):
    kb = {"Rss": 64, "Anonymous": 0, "Swap": 0, "Locked": 0} | kb
    return [f"{head}\n", *(f"{name}: {value} kB\n" for name, value in kb.items()), "VmFlags: rd mr mw me\n"]


def test_a_clean_mapping_of_a_file():
    assert list(clean_mappings(smaps())) == [(0x1000, 0x2000)]


@pytest.mark.parametrize(
    "kept",
    [
        smaps("1000-3000 rw-p 00000000 fe:00 42 /usr/lib/lib.so"),
        smaps("1000-3000 r--s 00000000 fe:00 42 /usr/lib/lib.so"),
        smaps("1000-3000 ---p 00000000 fe:00 42 /usr/lib/lib.so"),
        smaps("1000-3000 r--p 00000000 00:00 0"),
        smaps("1000-3000 r-xp 00000000 00:00 0 [vdso]"),
        smaps(Anonymous=4),
        smaps(Swap=4),
        smaps(Locked=4),
        smaps(Rss=60),
    ],
    ids=["writable", "shared", "unreadable", "no file", "the kernel's", "written", "swapped", "locked", "small"],
)
def test_what_is_kept(kept):
    assert list(clean_mappings([*kept, *smaps("5000-6000 r--p 00000000 fe:00 43 /a b-c")])) == [(0x5000, 0x1000)]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "library"
    path.write_bytes(bytes(range(256)) * 4096)
    return path


def mapped(path, protection):
    with path.open("rb") as opened:
        return mmap.mmap(opened.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=protection)


def resident_kb(path):
    found, inside = 0, False
    for line in file_pages.SMAPS.read_text().splitlines():
        if "-" in line.split(":")[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found


def test_pages_are_returned_and_come_back(file):
    mapping = mapped(file, mmap.PROT_READ)
    assert mapping[:] == file.read_bytes()
    assert resident_kb(file) == 1024
    give_back()
    assert resident_kb(file) == 0
    assert mapping[:] == file.read_bytes()


def test_what_was_written_is_not_lost(file):
    mapping = mapped(file, mmap.PROT_READ | mmap.PROT_WRITE)
    mapping[5000] = 7
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
    assert mapping[:4096] == file.read_bytes()[:4096]
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), len(mapping), mmap.PROT_READ) == 0
    give_back()
    assert mapping[5000] == 7


def test_a_process_that_does_without(file, monkeypatch):
    monkeypatch.setenv(WITHOUT, "diet,file-pages")
    mapping = mapped(file, mmap.PROT_READ)
    assert len(mapping[:]) == 2**20
    give_back()
    assert resident_kb(file) == 1024


def test_the_interpreter_goes_on():
    """Its own code is among the pages that are returned."""
    code = (
        "from edge_trgl.runtime.memory.file_pages import give_back\nimport threading\n"
        "threads = [threading.Thread(target=lambda: sum(map(float, range(10**5)))) for _ in range(3)]\n"
        "for thread in threads: thread.start()\nfor _ in range(20): give_back()\n"
        "for thread in threads: thread.join()\nprint('well')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "well\n"
