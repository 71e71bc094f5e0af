"""What the loop does between two steps."""

from __future__ import annotations

from itertools import pairwise

import pytest

from edge_trgl import trainer


@pytest.mark.parametrize("regime", ["parallel", "end-to-end"])
@pytest.mark.parametrize("without", [(), ("trim",)])
def test_freed_memory_is_given_back_between_steps_on_other_numbers_of_samples(
    train_run, monkeypatch, regime, without
):
    """A short batch's places on the heap would else stay beside a full batch's tensors."""
    done, step, trim = [], trainer._step, trainer.memory.trim

    def stepping(visit, batch, samples, local, rooms):
        if visit.span.split == "train":
            done.append(len(samples))
        step(visit, batch, samples, local, rooms)

    def trimming():
        done.append("trim")
        trim()

    monkeypatch.setattr(trainer, "_step", stepping)
    monkeypatch.setattr(trainer.memory, "trim", trimming)
    monkeypatch.setattr(trainer.memory, "settle", lambda full_mb: None)  # which depends on what ran here before
    train_run("run", data__limit=90, train__short_batch="keep", train__regime=regime, budget__without=without)
    pairs = set(pairwise(done))
    assert bool({(16, 8), (8, 16)} & pairs) == bool(without)
    assert ({(16, "trim"), ("trim", 8)} <= pairs) == (not without)
    assert (16, 16) in pairs
