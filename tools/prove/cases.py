"""Networks, regimes and budgets of the proof. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

NUM_CHECKED_BATCHES = 1
"""Validation batches, and test batches."""


@dataclass(frozen=True, kw_only=True)
class Net:
    """A net with its images. `model`: flags; `side`: pixels of resized images, None for the sample as it is;
    `batches`: whole ones of an epoch; `short`: images of one more, which is kept."""

    title: str
    model: tuple[str, ...]
    batch_size: int = 32
    batches: int = 3
    short: int = 0
    side: int | None = None


def _own(name: str) -> tuple[str, ...]:
    return ("--model", f"tools.prove.nets:{name}")


NETS = {
    "km-narrow": Net(title="K-M 10-1, width 16", model=("--model", "km-10-1", "--width", "16")),
    "km-wide": Net(title="K-M 4-1, width 256", model=("--model", "km-4-1", "--width", "256")),
    "km-deep": Net(title="K-M 50-1, width 32", model=("--model", "km-50-1", "--width", "32")),
    "km-short": Net(
        title="K-M 20-1, batches of 128 and 22",
        model=("--model", "km-20-1", "--width", "32"),
        batch_size=128,
        batches=1,
        short=22,
    ),
    "resnet110": Net(
        title="ResNet-110, 54 modules, 96x96, batch 64",
        model=("--model", "resnet110", "--modules", "54"),
        batch_size=64,
        batches=2,
        side=96,
    ),
    "resnet18": Net(title="ResNet-18, own blocks", model=_own("resnet18")),
    "mobilenet": Net(title="MobileNetV2-like, own blocks", model=_own("mobilenet")),
    "mlp": Net(title="MLP, 6 x 1024", model=_own("mlp")),
    "huge": Net(title="one layer of 128 MiB", model=_own("huge")),
}
QUICK_NETS = ("km-narrow", "mobilenet", "mlp")

REGIMES = {
    "parallel": ("--regime", "parallel", "--epochs", "2"),
    "sequential": ("--regime", "sequential", "--epochs", "1"),
    "multi-lap": ("--regime", "multi-lap", "--laps", "2", "--epochs", "2"),
    "end-to-end": ("--regime", "end-to-end", "--epochs", "2"),
}
"""Two epochs where modules stay in memory: with one, ResNet-110 ends before its peak (649 MiB; 674 with three)."""

LEVELS = {"minimum": 1.0, "+15 %": 1.15, "generous": 10.0}
"""Budgets as multiples of the smallest that the plan states."""

COLD = "+15 %"
"""The level whose runs find an empty cache: they measure the modules inside their own budget."""

GENEROUS_SHARE = 0.8
"""Of the memory that is available: no budget is larger."""

MINIMUM_CASES = (("km-narrow", "parallel"), ("mlp", "parallel"), ("huge", "sequential"), ("resnet110", "parallel"))
QUICK_MINIMUM_CASES = MINIMUM_CASES[:2]

STATE = Net(title="MLP, 91 x 2048", model=_own("large_state"), batches=2)
STATE_BUDGET_MB, STATE_FACTOR = 700.0, 4.0
STATE_FLAGS = ("--regime", "parallel", "--epochs", "2", "--chunk", "epoch")

BALLOON = Net(title="K-M 4-1, width 64", model=("--model", "km-4-1", "--width", "64"), batches=30)
BALLOON_FLAGS = ("--regime", "parallel", "--epochs", "2", "--chunk", "10")
BALLOON_BUDGET_MB = 420.0
BALLOON_ROOM_MB = 40.0
"""What the cgroup has beyond the budget: the balloon itself must start in it."""

DEPTHS, QUICK_DEPTHS = (10, 50, 100), (10, 20)
DEPTH_FLAGS = ("--regime", "parallel", "--epochs", "1", "--resident", "1", "--chunk", "epoch")
DEPTH_BUDGET_MB = 420.0


def depth_net(num_modules: int) -> Net:
    """A K-M net of equal modules."""
    model = ("--model", f"km-{num_modules}-1", "--width", "64", "--set", "model.downsample=[]")
    return Net(title=f"K-M {num_modules}-1, width 64", model=model)
