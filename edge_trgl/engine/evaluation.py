"""Evaluation: the accuracy at every depth, from forward visits over a split, and the depth to use.

Of an autoencoder the error of what it rebuilds takes the place of accuracies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edge_trgl.config.loss import LossConfig
from edge_trgl.engine import from_config, process_setup, regimes
from edge_trgl.engine.open_run import OpenRun, open_run
from edge_trgl.engine.trainer import EngineContext, walk
from edge_trgl.engine.visits import Split, Visit
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.totals import Totals
from edge_trgl.run.facts import Reconstruction, Scores
from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory import allocator
from edge_trgl.runtime.memory.headroom import Headroom
from edge_trgl.runtime.memory.high_water import Meter
from edge_trgl.runtime.storage.activation_store import ActivationStore
from edge_trgl.runtime.storage.module_store import ModuleStore

SPLITS: tuple[Split, ...] = ("val", "test")
Check = Callable[[Visit], None]
"""Called after every visit; raises to stop."""


def run(run: Run) -> tuple[Scores, str]:
    """Score a trained run; return its scores and the SHA-256 (hex) of the weights that were scored."""
    opened = open_run(run)
    allocator.keep_tensors_on_heap()
    modules, headroom = opened.modules(), opened.headroom(opened.facts.limits, process_setup.others_mb())
    scores = evaluate(opened, modules, Meter(), headroom, lambda visit: None)
    return scores, weights_sha256(modules, opened.depth)


def evaluate(
    opened: OpenRun, modules: ModuleStore[LocalModule], meter: Meter, headroom: Headroom, check: Check
) -> Scores:
    """Score every depth that was trained and has a head on the validation and test sets.

    End-to-end training has a head at the last depth only. The one head of an autoencoder is its decoder.

    Args:
        opened: the run.
        modules: its trained modules.
        meter: measures the memory peak of each visit.
        headroom: trims the heap before steps that need it.
        check: called after every visit; raises to stop.
    """
    scorer = Scorer(opened=opened, modules=modules, meter=meter, headroom=headroom, check=check)
    depth, chunk = opened.depth, opened.plan.layout.chunk
    totals = [scorer.score(split, depth=depth, chunk=chunk) for split in SPLITS]
    if not opened.config.loss.reads_labels:
        return _rebuilt(opened, *totals)
    validation, test = map(_accuracies, totals)
    best = choose_depth(validation)
    return Scores(
        first_depth=depth - len(validation) + 1,
        per_depth=tuple(validation),
        chosen_depth=depth - len(validation) + best,
        chosen=test[best - 1] if test else None,
        last=test[-1] if test else None,
        test_per_depth=tuple(test),
        chosen_on=opened.config.data.choose_on,
    )


def _rebuilt(opened: OpenRun, validation: Sequence[Totals], test: Sequence[Totals]) -> Scores:
    """Return the scores of an autoencoder, which has a single module."""
    errors = [next((total.loss / total.num_images for total in split), None) for split in (validation, test)]
    return Scores(
        first_depth=1,
        per_depth=(),
        chosen_depth=1,
        chosen=None,
        last=None,
        test_per_depth=(),
        chosen_on=opened.config.data.choose_on,
        reconstruction=Reconstruction(validation=errors[0], test=errors[1], num_modules=_modules_filled(opened)),
    )


def _modules_filled(opened: OpenRun) -> int:
    """Count the leading modules of the whole network, but for its last, that consist of the run's blocks."""
    config, num_blocks = opened.config, len(opened.factory.chain.blocks)
    classifying = replace(config, model=replace(config.model, blocks=None), loss=LossConfig())
    with torch.device("meta"):
        whole = from_config.make_chain(classifying, opened.info, from_config.stored_net(opened.facts))
    return sum(start <= num_blocks for start in whole.starts[1:])


def choose_depth(accuracies: Sequence[float]) -> int:
    """Return the position, from 1, of the best accuracy; of equals the first, as it is the smaller network."""
    return max(range(len(accuracies)), key=lambda depth: (accuracies[depth], -depth)) + 1


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Scores the modules of a run as they are, see `evaluate`."""

    opened: OpenRun
    modules: ModuleStore[LocalModule]
    meter: Meter
    headroom: Headroom
    check: Check

    def score(self, split: Split, *, depth: int, chunk: int) -> list[Totals]:
        """Take `split` through the first `depth` modules, `chunk` batches at a time.

        Returns:
            What each module counted: nothing without a head. An empty list for an empty split.
        """
        opened, num_images = self.opened, self.opened.info.splits[split].num_images
        if num_images == 0:
            return []
        job = from_config.job_size(opened.config, depth, num_images)
        context = EngineContext(
            modules=self.modules,
            activations=ActivationStore(opened.run.scratch, num_images, job.batch_size),
            feed=opened.feed(split),
            meter=self.meter,
            learning_rate=_no_rate,
            spec_of=opened.factory.spec_of,
            seed=opened.config.train.seed,
            prefetch=opened.plan.layout.prefetch,
            work_mb=opened.work_mb(),
            headroom=self.headroom,
        )
        context.activations.restore([])  # removes what a killed evaluation left behind
        totals = [Totals() for _ in range(depth)]

        def after(position: int, visit: Visit, local: LocalModule) -> None:
            totals[visit.module] = totals[visit.module].plus(local.take_totals())
            self.check(visit)

        walk(regimes.evaluation(job, split, min(chunk, job.batches_per_pass)), context, after)
        context.activations.close()
        context.feed.close()
        return totals


def _accuracies(totals: Sequence[Totals]) -> list[float]:
    return [total.correct / total.num_images for total in totals if total.num_images]


def _no_rate(visit: Visit, batch: int) -> float:
    raise AssertionError("evaluation trains nothing")


def weights_sha256(modules: ModuleStore[LocalModule], num_modules: int) -> str:
    """Return the SHA-256 (hex) over all final tensors in order.

    Each contributes its module, name, dtype, shape and contiguous little-endian bytes.
    """
    digest = hashlib.sha256()
    for module in range(num_modules):
        # Else blocks freed by the previous module stay resident beside this one: up to 24 MiB with small layers.
        allocator.trim()
        for name, tensor in modules.open(module).final_tensors().items():
            head = f"{module} {name} {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}\n"
            digest.update(head.encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return flat.numpy().data
