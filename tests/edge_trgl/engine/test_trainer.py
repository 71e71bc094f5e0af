"""What the loop does between two steps."""

from __future__ import annotations

import pytest

from edge_trgl.engine import trainer
from edge_trgl.runtime.memory.headroom import Headroom


@pytest.mark.slow
@pytest.mark.parametrize("regime", ["parallel", "end-to-end"])
def test_every_step_is_between_two_looks_at_what_is_free(train_run, monkeypatch, regime):
    """A short batch, and an evaluation, take another place on the heap than what was there before."""
    done, step = [], trainer._step

    def stepping(visit, batch, samples, local, rooms):
        step(visit, batch, samples, local, rooms)
        done.append((visit.module, visit.kind, visit.span.split, len(samples)))

    monkeypatch.setattr(trainer, "_step", stepping)
    monkeypatch.setattr(Headroom, "before", lambda freed, work_mb: done.append(work_mb))
    monkeypatch.setattr(Headroom, "after", lambda freed: done.append("after"))
    train_run("run", data__limit=90, train__short_batch="keep", train__regime=regime)
    works, steps, ends = done[::3], done[1::3], done[2::3]
    assert set(ends) == {"after"}
    assert {split for _, _, split, _ in steps} == {"train", "val", "test"}
    assert {16, 8} <= {size for _, _, split, size in steps if split == "train"}
    full = {(module, kind): work for work, (module, kind, _, size) in zip(works, steps, strict=True) if size == 16}
    assert min(full.values()) > 0
    for work, (module, kind, _, size) in zip(works, steps, strict=True):
        assert work == pytest.approx(full[module, kind] * size / 16)
    assert all(full[module, "train"] > full[module, "forward"] for module, kind in full if kind == "train")
