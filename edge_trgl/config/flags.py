"""The options that have a name of their own, the same on the command line and in Python.

`--budget-mb 500` is `budget_mb=500`, `--no-transport` is `no_transport=True`. Every other option of a
configuration goes by its section and key.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_trgl.config import sources
from edge_trgl.config.head_choice import NAMES
from edge_trgl.config.sections import RunConfig
from edge_trgl.runtime.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Flag:
    """An option with a name of its own.

    Args:
        name: in Python; on the command line `--` and dashes.
        key: the `section.key` of the configuration that it sets.
        kind: how its value is read.
        choices: the words that it may be, and what each stands for in the configuration; empty for any value.
        value: what it stands for where it is a switch, which takes no value; None where it is none.
    """

    name: str
    key: str
    help: str
    kind: type[str | int | float] = str
    choices: Mapping[str, Any] = field(default_factory=dict)
    value: Any = None

    @property
    def option(self) -> str:
        """On the command line."""
        return f"--{self.name.replace('_', '-')}"


def _words(*words: str) -> dict[str, str]:
    return {word: word for word in words}


MODEL_HELP = (
    "km-K-M, km-K-M-encoder, resnet50, resnet101, resnet110, resnet110-heavy, resnet152, swin-tiny, vgg19, "
    "torchvision:NAME, timm:NAME or module:factory [km-10-1]"
)

HEAD_HELP = (
    f"auxiliary classifiers: {', '.join(NAMES)}; one for each module, as conv,conv,linear; auto, or "
    "auto:pooled,linear, for the cheapest in memory [the model's own]"
)

FLAGS = (
    Flag(
        name="budget_mb",
        key="budget.mb",
        help="MiB of memory for everything the run does, auto or min [2000]",
    ),
    Flag(
        name="disk_mb",
        key="budget.disk_mb",
        kind=float,
        help="MiB that the run's folder may take on its disk [what is free]",
    ),
    Flag(name="data", key="data.source", help="sample, a folder, or a .npz file [sample]"),
    Flag(name="image_size", key="data.image_size", kind=int, help="resize image files to this side"),
    Flag(name="model", key="model.name", help=MODEL_HELP),
    Flag(name="width", key="model.width", kind=int, help="filters of a K-M net [32]"),
    Flag(name="modules", key="model.modules", kind=int, help="regroup the blocks into this many modules"),
    Flag(name="head", key="model.head", help=HEAD_HELP),
    Flag(
        name="regime",
        key="train.regime",
        choices=_words("parallel", "multi-lap", "sequential", "end-to-end"),
        help="order of training [parallel]",
    ),
    Flag(
        name="chunk",
        key="budget.chunk",
        help="batches a module is trained on at a time: a number, epoch or auto [auto]",
    ),
    Flag(name="resident", key="budget.resident", help="modules kept in memory: a number or auto [auto]"),
    Flag(
        name="epochs",
        key="train.epochs",
        help="passes over the data of each module: 30, 50+10k, or 5,6,7 [10]",
    ),
    Flag(name="laps", key="train.laps", kind=int, help="laps of multi-lap training [1]"),
    Flag(name="batch_size", key="train.batch_size", kind=int, help="images a step [32]"),
    Flag(name="lr", key="train.lr", kind=float, help="learning rate [0.02]"),
    Flag(
        name="tau",
        key="transport.tau",
        kind=float,
        help="transport weight is 1/(2 tau); doubled in the second half [0.5]",
    ),
    Flag(
        name="loss",
        key="loss.name",
        choices=_words("cross-entropy", "predsim", "infopro", "infopro-contrast"),
        help="local loss, the transport term apart [cross-entropy]",
    ),
    Flag(
        name="pretrained",
        key="model.pretrained",
        help="weights to begin with: safetensors, a state dict, a run's folder",
    ),
    Flag(
        name="freeze",
        key="train.freeze",
        kind=int,
        help="modules, the first ones, that are not trained [0]",
    ),
    Flag(name="views", key="train.views", kind=int, help="augmented copies in a cached boundary [1]"),
    Flag(
        name="cache",
        key="train.cache",
        choices={"boundary": True, "none": False},
        help="of sequential and multi-lap training, and of what --freeze leaves as it is [boundary]",
    ),
    Flag(name="seed", key="train.seed", kind=int, help="keys everything random [0]"),
    Flag(name="device", key="train.device", choices=_words("cpu", "cuda"), help="where to compute [cpu]"),
    Flag(
        name="precision",
        key="train.precision",
        choices=_words("fp32", "bf16"),
        help="arithmetic of the forward pass [fp32]",
    ),
    Flag(name="threads", key="train.threads", kind=int, help="CPU threads [as the system says]"),
    Flag(
        name="allow",
        key="budget.allow",
        help="what may change results to fit: micro-batch, fp16-boundaries, int8-boundaries",
    ),
    Flag(
        name="without",
        key="budget.without",
        help="savings to switch off, to measure them: paging, disk, recompute, ...",
    ),
    Flag(name="no_transport", key="transport.enabled", value=False, help="no transport term (VanGL)"),
    Flag(
        name="shared_head",
        key="model.shared_head",
        value=True,
        help="one classifier for all modules, which then stay in memory",
    ),
    Flag(name="no_augment", key="data.augment", value=False, help="images as they are"),
    Flag(name="no_probe", key="budget.probe", value=False, help="plan by estimates, without measured steps"),
    Flag(name="cgroup", key="budget.cgroup", value=True, help="train in a memory cgroup of the budget"),
    Flag(
        name="force",
        key="budget.force",
        value=True,
        help="train though the plan says that it does not fit",
    ),
)


def configuration(
    flags: Mapping[str, Any],
    *,
    profile: str | None = None,
    recipe: str | None = None,
    config_file: Path | None = None,
    values: Iterable[Mapping[str, Any]] = (),
) -> RunConfig:
    """The configuration of defaults < profile < recipes < file < `values` < `flags`.

    Args:
        flags: by name; None, and False of a switch, stand for one that was not given.
        profile: a board's, by name or file.
        recipe: names, with commas.
        config_file: in TOML.
        values: by section and key.

    Raises:
        UsageError: naming every mistake.
        InputError: a file cannot be read.
    """
    layers: list[Mapping[str, Any]] = []
    if profile:
        layers.append(sources.read_profile(profile))
    if recipe:
        layers += sources.read_recipes(recipe)
    if config_file:
        layers.append(sources.read_toml(config_file))
    return sources.resolve(*layers, *values, _sections(flags))


def _sections(flags: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    known = {flag.name: flag for flag in FLAGS}
    sections: dict[str, dict[str, Any]] = {}
    for name, given in flags.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UsageError(
                f"there is no option {name}" + (f", did you mean {near[0]}?" if near else ""),
                hint="edge-trgl train --help lists the options.",
            )
        flag = known[name]
        if given is None or (flag.value is not None and given is False):
            continue
        section, _, key = flag.key.partition(".")
        value = given if flag.value is None else flag.value
        sections.setdefault(section, {})[key] = flag.choices.get(value, value)
    return sections
