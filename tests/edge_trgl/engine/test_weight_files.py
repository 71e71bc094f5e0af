"""Files of weights: which kinds are read, and what is refused. Their tensors are tested in test_pretrained."""

from __future__ import annotations

import hashlib
import pickle
from unittest.mock import Mock

import pytest
import torch

from edge_trgl.engine.weight_files import open_weights, sha256
from edge_trgl.runtime.errors import InputError, UsageError


class TestRefused:
    def test_no_file(self, tmp_path):
        with pytest.raises(InputError, match=r"none.pth: there is no such file"):
            open_weights(tmp_path / "none.pth")

    def test_no_run(self, tmp_path):
        with pytest.raises(UsageError, match="is not a run"):
            open_weights(tmp_path)

    def test_code_in_a_pickle_is_not_run(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return print, ("run",)

        torch.save({"weight": Evil()}, tmp_path / "w.pth")
        with pytest.raises(InputError, match="cannot be read as weights"):
            open_weights(tmp_path / "w.pth")

    def test_text_is_told_in_words(self, tmp_path):
        (tmp_path / "w.pth").write_text("hello\n")
        with pytest.raises(InputError, match=r"it is not what torch\.save writes"):
            open_weights(tmp_path / "w.pth")

    @pytest.mark.parametrize("content", [b"", b"no weights at all, only text", pickle.dumps({"a": 1})])
    def test_other_files(self, tmp_path, content):
        (tmp_path / "w.pth").write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as weights"):
            open_weights(tmp_path / "w.pth")

    def test_no_state_dict(self, tmp_path):
        torch.save([1, 2], tmp_path / "w.pth")
        with pytest.raises(InputError, match="holds no state dict"):
            open_weights(tmp_path / "w.pth")


def test_sha256_of_several_files(tmp_path):
    weights = Mock(paths=[tmp_path / "one", tmp_path / "two"])
    for path, text in zip(weights.paths, (b"ab", b"c"), strict=True):
        path.write_bytes(text)
    assert sha256(weights) == hashlib.sha256(b"abc").hexdigest()
