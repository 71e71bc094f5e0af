"""What a run is told: one frozen dataclass a section, read from profile, TOML file and flags.

Later sources win: built-in defaults < profile < file < flags. Every mistake is collected and shown at once,
by the dotted name that the user typed.
"""

from __future__ import annotations

import difflib
import math
import os
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from edge_trgl.runtime.errors import InputError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """`source`: `sample`, a folder or a .npz file. `crop_padding`: pixels; None is a sixteenth of the side."""

    source: str = "sample"
    image_size: int | None = None
    limit: int | None = None
    validation: float = 0.1
    augment: bool = True
    crop_padding: int | None = None
    flip: bool = True

    def problems(self) -> list[str]:
        """What is out of bounds."""
        return _unless(0 < self.validation < 1, "data.validation must lie between 0 and 1") + _unless(
            self.crop_padding is None or self.crop_padding >= 0, "data.crop_padding must not be negative"
        )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """`name`: km-K-M, resnet110, resnet110-heavy or module:factory. `modules` regroups its blocks."""

    name: str = "km-10-1"
    width: int = 32
    modules: int | None = None
    downsample: tuple[int, ...] | None = None
    head: Literal["conv", "linear"] = "conv"
    partition: Literal["depth", "weight"] = "depth"

    def problems(self) -> list[str]:
        """What is out of bounds."""
        return (
            _unless(self.width >= 2 and self.width % 2 == 0, "model.width must be even and at least 2")
            + _unless(self.modules is None or self.modules >= 1, "model.modules must be at least 1")
            + _unless(
                self.partition == "depth" or self.modules is not None,
                "model.partition weight needs model.modules",
            )
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """`epochs`: passes over the data of each module in all: a number, `50+10k`, or a comma-separated list."""

    regime: Literal["parallel", "multi-lap", "sequential", "end-to-end"] = "parallel"
    epochs: str = "10"
    laps: int = 1
    batch_size: int = 32
    lr: float = 0.02
    lr_schedule: Literal["cosine", "constant"] = "cosine"
    momentum: float = 0.9
    weight_decay: float = 2e-4
    label_smoothing: float = 0.1
    views: int = 1
    cache: bool = True
    seed: int = 0
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: int | None = None
    checkpoint_minutes: float = 5.0

    def problems(self) -> list[str]:
        """What is out of bounds."""
        found = []
        for name in ("laps", "batch_size", "views"):
            found += _unless(getattr(self, name) >= 1, f"train.{name} must be at least 1")
        for name in ("momentum", "weight_decay", "label_smoothing", "checkpoint_minutes"):
            found += _unless(getattr(self, name) >= 0, f"train.{name} must not be negative")
        found += _unless(0 < self.lr < math.inf, "train.lr must be above 0 and finite")
        found += _unless(self.momentum < 1, "train.momentum must be below 1")
        found += _unless(self.label_smoothing < 1, "train.label_smoothing must be below 1")
        found += _unless(self.threads is None or self.threads >= 1, "train.threads must be at least 1")
        found += _unless(
            self.laps <= 1 or self.regime == "multi-lap", "train.laps above 1 is for train.regime multi-lap"
        )
        try:
            epochs = parse_epochs(self.epochs, 1)
        except UsageError as error:
            return [*found, error.message]
        if self.regime in ("parallel", "end-to-end") and not self.epochs.strip().isdigit():
            found.append(f"train.epochs {self.epochs!r}: {self.regime} trains every module for the same number")
        found += _unless(min(epochs) >= self.laps, "train.epochs must be at least one a lap")
        return found


@dataclass(frozen=True, kw_only=True)
class TransportConfig:
    """`enabled` False is VanGL. `tau`: of the first half of the modules, in units of `reduction`; then doubled.

    `multipliers` uses λ of appendix D (`lambda_first`, `growth`, `every`) in place of τ.
    """

    enabled: bool = True
    tau: float = 0.5
    reduction: Literal["mean", "sum"] = "mean"
    multipliers: bool = False
    lambda_first: float = 1.0
    growth: float = 1.0
    every: int = 50

    def problems(self) -> list[str]:
        """What is out of bounds."""
        return (
            _unless(self.tau > 0, "transport.tau must be above 0 (use --no-transport for none)")
            + _unless(self.lambda_first > 0, "transport.lambda_first must be above 0")
            + _unless(self.growth >= 0, "transport.growth must not be negative")
            + _unless(self.every >= 1, "transport.every must be at least 1")
        )


Saving = Literal["paging", "disk", "recompute", "early-update", "reuse", "trim", "allocator"]
"""paging: modules in memory all the time. disk: boundaries never on disk. recompute: every activation kept.
early-update: weights updated after the backward, not in it. reuse: a new buffer for every read of a boundary.
trim: freed heap stays with the process between visits. allocator: the C library's own settings."""


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """`mb`: MiB for everything the run has in memory; `auto` is 80 % of what is available, `min` the smallest that
    works. `chunk` and `resident`: `auto` leaves them to the plan. `allow`: what may change the result for the run
    to fit. `without`: savings that are switched off, to measure them. `probe`: plan by measured steps. `cgroup`:
    train in a memory cgroup of the budget. `force`: go on where the plan says that it does not fit.
    """

    mb: Literal["auto", "min"] | float = 2000.0
    chunk: str = "auto"
    resident: str = "auto"
    prefetch: bool = True
    allow: tuple[Literal["micro-batch", "fp16-boundaries"], ...] = ()
    without: tuple[Saving, ...] = ()
    probe: bool = True
    cgroup: bool = False
    force: bool = False

    def problems(self) -> list[str]:
        """What is out of bounds."""
        return (
            _unless(isinstance(self.mb, str) or self.mb > 0, "budget.mb must be above 0, auto or min")
            + _unless(
                _is_count(self.chunk, ("auto", "epoch")),
                "budget.chunk must be auto, epoch or a number of batches",
            )
            + _unless(_is_count(self.resident, ("auto",)), "budget.resident must be auto or a number of modules")
            + _unless(
                "paging" not in self.without or self.resident == "auto",
                "budget.resident says nothing with budget.without paging",
            )
        )


@dataclass(frozen=True, kw_only=True)
class BoardConfig:
    """What a profile says of the machine; None and () where it says nothing. `estimates`: what nobody measured.

    `usable_mb`: MiB of memory as the kernel shows it. `memory_gbs`: GB/s. `storage_*_mbs`: MB/s, sequential.
    `storage_random_iops`: reads of 4 KiB a second. `endurance_tb`: TB that may be written. `images_per_s`: of
    probe's reference module. `dtypes`: fp32, fp16, bf16. `providers`: of ONNX Runtime.
    """

    name: str | None = None
    usable_mb: float | None = None
    memory_gbs: float | None = None
    gpu: str | None = None
    dtypes: tuple[Literal["fp32", "fp16", "bf16"], ...] = ()
    storage: str | None = None
    storage_read_mbs: float | None = None
    storage_write_mbs: float | None = None
    storage_random_iops: float | None = None
    endurance_tb: float | None = None
    images_per_s: float | None = None
    counters: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    estimates: tuple[str, ...] = ()

    def problems(self) -> list[str]:
        """What is out of bounds."""
        found, values = [], asdict(self)
        for name, value in values.items():
            good = not isinstance(value, float) or 0 < value < math.inf
            found += _unless(good, f"board.{name} must be above 0 and finite")
        for name in self.estimates:
            good = values.get(name) not in (None, ())
            found += _unless(good, f"board.estimates names {name}, which the board does not give")
        return found


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    transport: TransportConfig = field(default_factory=TransportConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    board: BoardConfig = field(default_factory=BoardConfig)

    def problems(self) -> list[str]:
        """What is out of bounds or does not go together."""
        sections = (self.data, self.model, self.train, self.transport, self.budget, self.board)
        found = [problem for section in sections for problem in section.problems()]
        streams = self.train.regime == "parallel" or (self.train.regime != "end-to-end" and not self.train.cache)
        if not streams and self.budget.chunk != "auto":
            found.append(
                f"budget.chunk is for parallel training, or without a cache; train.regime is {self.train.regime}"
            )
        return found

    def document(self) -> dict[str, Any]:
        """As nested plain values; None is left out, TOML having no word for it."""
        return {
            section: {name: list(v) if isinstance(v, tuple) else v for name, v in values.items() if v is not None}
            for section, values in asdict(self).items()
        }


def parse_epochs(text: str, num_modules: int) -> tuple[int, ...]:
    """Epochs of each module from `30`, `50+10k` (module k: 50 + 10 k) or `5,6,7`.

    Raises:
        UsageError: none of these, or a list of another length than the number of modules.
    """
    text = text.strip()
    try:
        if "," in text:
            listed = tuple(int(part) for part in text.split(","))
            if num_modules != 1 and len(listed) != num_modules:
                raise UsageError(f"train.epochs lists {len(listed)} numbers for {num_modules} modules")
        elif text.endswith("k"):
            base, step = text[:-1].split("+")
            listed = tuple(int(base) + int(step) * module for module in range(num_modules))
        else:
            listed = (int(text),) * num_modules
    except ValueError:
        raise UsageError(
            f"train.epochs {text!r} is not a number, a form like 50+10k, or a list like 5,6,7"
        ) from None
    if min(listed) < 1:
        raise UsageError("train.epochs must be at least 1")
    return listed


def resolve(*sources: Mapping[str, Any]) -> RunConfig:
    """The configuration that nested `sources` give, later ones winning.

    Raises:
        UsageError: naming every mistake.
    """
    merged: dict[str, dict[str, Any]] = {}
    mistakes: list[str] = []
    sections = {item.name: _section_type(item.name) for item in fields(RunConfig)}
    for source in sources:
        for section, values in source.items():
            if section not in sections:
                mistakes.append(_unknown(section, list(sections)))
            elif not isinstance(values, Mapping):
                mistakes.append(f"{section} must be a section, [{section}]")
            else:
                merged.setdefault(section, {}).update(values)
    built = {}
    for section, kind in sections.items():
        values, wrong = _typed(section, kind, merged.get(section, {}))
        mistakes += wrong
        built[section] = kind(**values)
    config = RunConfig(**built)
    told = {mistake.split()[0] for mistake in mistakes}
    mistakes += [problem for problem in config.problems() if not any(name in problem for name in told)]
    if mistakes:
        raise UsageError("; ".join(mistakes), hint="edge-trgl train --help lists the options.")
    return config


def read_toml(path: Path) -> dict[str, Any]:
    """A configuration file.

    Raises:
        InputError: it cannot be read or is not TOML.
    """
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"{path} cannot be read as TOML: {error}", hint="Check the path and the syntax."
        ) from error
    return document


PROFILES = Path(__file__).parent / "profiles"


def own_profiles() -> Path:
    """The folder of the profiles that `edge-trgl probe --save NAME` writes, there or not."""
    # The specification of that variable: a relative path is none.
    base = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".config") / "edge-trgl" / "profiles"


def read_profile(name: str) -> dict[str, Any]:
    """What a profile gives `resolve`: the sections of its `[defaults]`, and its `[board]`.

    `name`: of a saved profile, of a bundled one, or a path ending in .toml.

    Raises:
        UsageError: no such profile, or it has another form.
        InputError: the file cannot be read.
    """
    path = Path(name) if name.endswith(".toml") else _find_profile(name)
    document = read_toml(path)
    defaults = document.get("defaults", {})
    if not isinstance(defaults, Mapping):
        raise UsageError(f"{path}: defaults must hold sections", hint="For example [defaults.train].")
    board = {"board": document["board"]} if "board" in document else {}
    return {**defaults, **board}


def _find_profile(name: str) -> Path:
    files = {file.stem: file for folder in (PROFILES, own_profiles()) for file in sorted(folder.glob("*.toml"))}
    if name in files:
        return files[name]
    near = [known for known in files if name in known] or difflib.get_close_matches(name, files)
    raise UsageError(
        f"there is no profile {name!r}",
        hint=(f"Did you mean {' or '.join(near)}? " if near else "")
        + f"Known: {', '.join(sorted(files))}; or give a .toml file.",
    )


def parse_setting(text: str) -> dict[str, dict[str, Any]]:
    """`section.key=value` as a source; the value is TOML, or else the text itself.

    Raises:
        UsageError: it has another form.
    """
    name, equals, value = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not equals or not dot:
        raise UsageError(f"--set {text}: expected section.key=value", hint="For example --set train.momentum=0.8")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    return {section: {key: parsed}}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The dotted names whose values differ between two documents, with both values."""
    found = []
    for section in sorted({*old, *new}):
        before, after = old.get(section, {}), new.get(section, {})
        found += [
            f"{section}.{name}: {before.get(name)} in the run, {after.get(name)} now"
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        ]
    return found


def _unless(good: bool, problem: str) -> list[str]:  # noqa: FBT001 - reads as a sentence
    return [] if good else [problem]


def _is_count(text: str, words: tuple[str, ...]) -> bool:
    return text in words or (text.isdecimal() and int(text) >= 1)


def _section_type(name: str) -> Any:
    return typing.get_type_hints(RunConfig)[name]


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"{name} is not known" + (f", did you mean {near[0]}?" if near else f"; known: {', '.join(known)}")


def _typed(section: str, kind: Any, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    hints = typing.get_type_hints(kind)
    good, mistakes = {}, []
    for name, value in values.items():
        if name not in hints:
            mistakes.append(_unknown(f"{section}.{name}", [f"{section}.{known}" for known in hints]))
            continue
        try:
            good[name] = _convert(value, hints[name])
        except ValueError as error:
            mistakes.append(f"{section}.{name} = {value!r}: {error}")
    return good, mistakes


def _convert_union(value: Any, hints: list[Any]) -> Any:
    """`value` as the first of `hints` that takes it."""
    for hint in hints[:-1]:
        try:
            return _convert(value, hint)
        except ValueError:
            continue
    return _convert(value, hints[-1])


def _convert(value: Any, hint: Any) -> Any:
    """`value` as the type `hint`, for the few types that the sections use."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _convert_union(value, [a for a in arguments if a is not type(None)])
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"choose one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        items = value if isinstance(value, (list, tuple)) else str(value).split(",")
        return tuple(_convert(item, arguments[0]) for item in items if item != "")
    if hint is bool:
        if not isinstance(value, bool):
            raise ValueError("expected true or false")
        return value
    if isinstance(value, bool):
        raise ValueError(f"expected {hint.__name__}")
    if hint is str:
        return ",".join(map(str, value)) if isinstance(value, list) else str(value)
    try:
        converted = hint(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"expected {hint.__name__}") from None
    if hint is int and isinstance(value, float) and converted != value:
        raise ValueError("expected a whole number")
    return converted
