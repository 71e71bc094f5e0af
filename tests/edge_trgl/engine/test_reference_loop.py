"""The engine against plain PyTorch loops: the published parallel loop, layer-wise sequential training, and the
authors' sequential training, which runs the modules before in training mode for every batch."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from nearness import SMALL, is_near
from torch.nn import functional

from edge_trgl.data import epoch_order, open_dataset, stored_order
from edge_trgl.engine.open_run import open_run

EPOCHS, BATCH, LR, TAU = 2, 15, 0.02, 0.3
SETTINGS = {
    "data__augment": False,
    "train__lr": LR,
    "train__epochs": str(EPOCHS),
    "train__batch_size": BATCH,
    "transport__tau": TAU,
}


OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, momentum=0.9, weight_decay=2e-4),
    "adamw": partial(torch.optim.AdamW, weight_decay=2e-4),
}


class Plain:
    """Whole modules in memory, torch.optim, nothing of the engine but the networks and their first weights."""

    def __init__(self, run) -> None:
        opened, train = open_run(run), run.config().train
        info = open_dataset(run.data)
        raw = np.fromfile(run.data / "train.images", np.uint8).reshape(-1, *info.shape)
        images = torch.from_numpy(raw).permute(0, 3, 1, 2).float()
        self.images = (images / 255 - torch.tensor(info.mean).view(1, -1, 1, 1)) / torch.tensor(info.std).view(
            1, -1, 1, 1
        )
        self.labels = torch.from_numpy(np.fromfile(run.data / "train.labels", "<i8"))
        self.modules = [opened.factory.initialise(k) for k in range(len(opened))]
        if run.config().model.shared_head:
            for module in self.modules[:-1]:
                module.head = self._shared(module.head, statistics=run.config().model.shared_statistics)
        self.optimizers = [OPTIMIZERS[train.optimizer](m.parameters()) for m in self.modules]
        self.lr, self.warmup = train.lr, train.warmup_epochs
        self.frozen = train.freeze
        self.losses = [[0.0] * EPOCHS for _ in self.modules]
        keeps_short = train.short_batch == "keep"
        self.batches = math.ceil(len(raw) / BATCH) if keeps_short else len(raw) // BATCH
        self.num_seen = len(raw) if keeps_short else self.batches * BATCH

    def _shared(self, head, *, statistics):
        """The last module's head for another module, perhaps with the running statistics of that one."""
        shared = self.modules[-1].head
        if statistics:
            return shared
        for name, weight in shared.named_parameters():
            layer, _, own = name.rpartition(".")
            head.get_submodule(layer)._parameters[own] = weight
        return head

    def order(self, epoch):
        return torch.from_numpy(epoch_order(len(self.labels), 0, epoch))

    def step(self, k, x, y, epoch, batch):
        """One local step; returns the output before it."""
        local, optimizer = self.modules[k].train(), self.optimizers[k]
        optimizer.param_groups[0]["lr"] = self.rate(epoch, batch)
        residues = []
        hooks = [
            module.register_forward_hook(lambda _, __, out: residues.append(out))
            for name, module in local.trunk.named_modules()
            if name.endswith("conv2")  # the end of a branch
        ]
        out = local.trunk(x)
        for hook in hooks:
            hook.remove()
        loss = functional.cross_entropy(local.head(out), y, label_smoothing=0.1)
        self.losses[k][epoch] += loss.item() * len(y) / self.num_seen
        if k > 0:  # module 0 holds the encoder and is exempt
            tau = TAU if k - self.frozen < (len(self.modules) - self.frozen) // 2 else 2 * TAU
            loss = loss + sum(r.pow(2).mean() for r in residues) / (2 * tau)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return out.detach()

    def rate(self, epoch, batch):
        if epoch < self.warmup:
            return self.lr * (epoch * self.batches + batch + 1) / (self.warmup * self.batches)
        done = ((epoch - self.warmup) * self.batches + batch) / ((EPOCHS - self.warmup) * self.batches)
        return self.lr * 0.5 * (1 + math.cos(math.pi * done))

    def batch(self, epoch, number):
        samples = self.order(epoch)[number * BATCH : (number + 1) * BATCH]
        return self.images[samples], self.labels[samples], samples


def parallel(plain):
    for epoch in range(EPOCHS):
        for number in range(plain.batches):
            x, y, _ = plain.batch(epoch, number)
            for k in range(len(plain.modules)):
                x = plain.step(k, x, y, epoch, number)


def sequential(plain):
    boundary = plain.images
    for k, local in enumerate(plain.modules):
        for epoch in range(EPOCHS):
            for number in range(plain.batches):
                _, y, samples = plain.batch(epoch, number)
                plain.step(k, boundary[samples], y, epoch, number)
        with torch.no_grad():
            boundary = local.eval().trunk(boundary)


def authors(plain):
    for k in range(len(plain.modules)):
        for epoch in range(EPOCHS):
            for number in range(plain.batches):
                x, y, _ = plain.batch(epoch, number)
                for before in plain.modules[:k]:
                    with torch.no_grad():
                        x = before.train().trunk(x)
                plain.step(k, x, y, epoch, number)


def train_mode_prefix(plain):
    """Parallel training behind a frozen module whose norms run in training mode."""
    frozen, *trained = range(len(plain.modules))
    for epoch in range(EPOCHS):
        for number in range(plain.batches):
            x, y, _ = plain.batch(epoch, number)
            with torch.no_grad():
                x = plain.modules[frozen].train().trunk(x)
            for k in trained:
                x = plain.step(k, x, y, epoch, number)


def recalibrated(loop, plain):
    """Then the running statistics are the mean of those of all batches, in the order of the stored images."""
    loop(plain)
    order = torch.from_numpy(stored_order(len(plain.labels), 0))
    norms = [part for module in plain.modules for part in module.modules() if hasattr(part, "running_mean")]
    statistics = {norm: [] for norm in norms}
    for number in range(plain.batches):
        x = plain.images[order[number * BATCH : (number + 1) * BATCH]]
        for norm in norms:
            norm.momentum = 1.0  # keeps those of the last batch alone
        with torch.no_grad():
            for module in plain.modules:
                x = module.train().trunk(x)
                if module.has_head:
                    module.head(x)
        for norm in norms:
            statistics[norm].append((norm.running_mean.clone(), norm.running_var.clone()))
    for norm in norms:
        means, variances = zip(*statistics[norm], strict=True)
        norm.running_mean.copy_(torch.stack(means).mean(0))
        norm.running_var.copy_(torch.stack(variances).mean(0))
        norm.num_batches_tracked.fill_(plain.batches)


SHARED = {"train__regime": "parallel", "model__shared_head": True, "model__downsample": ()}
AGAIN = {"train__recalibrate": True}
PREFIX = {"train__freeze": 1, "train__cache": "none", "train__prefix": "train-mode"}

LOOPS = [
    (parallel, {"train__regime": "parallel"}),
    (sequential, {"train__regime": "sequential"}),
    (authors, {"train__regime": "sequential", "train__cache": "none", "train__prefix": "train-mode"}),
    (parallel, {"train__regime": "parallel", "train__short_batch": "keep"}),
    (sequential, {"train__regime": "sequential", "train__short_batch": "keep"}),
    (parallel, {"train__regime": "parallel", "train__warmup_epochs": 1}),
    (parallel, SHARED),
    (parallel, {**SHARED, "model__shared_statistics": False}),
    (partial(recalibrated, parallel), {"train__regime": "parallel", "budget__chunk": "2", **AGAIN}),
    (partial(recalibrated, sequential), {"train__regime": "sequential", **AGAIN}),
    (partial(recalibrated, parallel), {**SHARED, "model__shared_statistics": False, **AGAIN}),
    (train_mode_prefix, {"train__regime": "parallel", **PREFIX}),
    (partial(recalibrated, train_mode_prefix), {"train__regime": "parallel", **PREFIX, **AGAIN}),
]


def assert_same_losses(opened, plain):
    for metric in opened.facts.metrics("train"):
        # A mean of float32 losses, each of a small net's logits.
        expected = plain.losses[metric.module][metric.epoch]
        assert metric.loss_sum / metric.num_images == pytest.approx(expected, rel=SMALL)


@pytest.mark.slow
@pytest.mark.parametrize(("loop", "settings"), LOOPS)
def test_engine_equals_plain_loop(train_run, loop, settings):
    trained = train_run("run", **SETTINGS, **settings)
    plain = Plain(trained.run)
    assert len(plain.labels) % BATCH > 1  # else a short batch would make no difference
    loop(plain)

    opened = open_run(trained.run)
    assert_same_losses(opened, plain)
    store = opened.modules()
    for k, module in enumerate(plain.modules):
        ours = store.open(k).final_tensors()
        for name, tensor in module.final_tensors().items():
            # A weight is its first value and the steps, which are sums over a small net's passes.
            assert is_near(ours[name].double(), tensor.double().detach()), (k, name)


def test_adamw_has_the_losses_of_a_plain_loop(train_run):
    """Its weights differ: where a gradient is but rounding, as a bias's before a batch norm, AdamW steps by it."""
    adamw = {"train__optimizer": "adamw", "train__lr": 2e-4, "train__warmup_epochs": 1}
    trained = train_run("run", **{**SETTINGS, **adamw})
    plain = Plain(trained.run)
    parallel(plain)
    assert_same_losses(open_run(trained.run), plain)
