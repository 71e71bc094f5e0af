"""The block of a disk is what its files grow by."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from edge_trgl.runtime.storage import blocks


def test_files_grow_by_blocks_of_the_disk(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x")
    taken = path.stat().st_blocks * 512
    assert taken % blocks.block_bytes(tmp_path) == 0


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (4096, 4096),
        (16_384, 16_384),  # f2fs of a kernel with such pages
        (65_536, 65_536),
        (1 << 20, 4096),  # NFS: what it transfers at once
    ],
)
def test_a_block_is_what_the_file_system_says_and_64_kib_at_most(tmp_path, monkeypatch, named, expected):
    monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_frsize=named))
    assert blocks.block_bytes(tmp_path) == expected
