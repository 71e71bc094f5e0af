"""The options that have a name of their own, the same on the command line and in Python.

`--budget-mb 500` is `budget_mb=500`, `--no-transport` is `no_transport=True`. Every other setting of a
configuration goes by its section and key. What an option means, takes and defaults to stands at the field that it
sets.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from edge_trgl.config import sources
from edge_trgl.config.fields import Setting, expected, settings_of, words_of
from edge_trgl.config.nearest import nearest
from edge_trgl.config.sections import SECTIONS, Document, RunConfig
from edge_trgl.runtime.errors import UsageError

Group = Literal["data", "model", "training", "budget", "output"]
"""The heading under which an option is listed."""


@dataclass(frozen=True, kw_only=True)
class Flag:
    """An option with a name of its own.

    Args:
        name: in Python; on the command line `--` and dashes.
        key: the `section.key` of the setting.
        group: its heading in a list of options.
        metavar: what stands for its value in a list of options.
        common: whether the short list has it.
        switched: the setting's value where the option is a switch, which takes no value; None where it is not one.
        paired: whether the option is a pair of switches, `--NAME` and `--no-NAME`, whose value is true or false.
        doc: its own sentence where that of the field reads the other way round.
    """

    name: str
    key: str
    group: Group
    metavar: str = ""
    common: bool = False
    switched: bool | None = None
    paired: bool = False
    doc: str = ""

    @property
    def option(self) -> str:
        """Its name on the command line, or both names of a pair."""
        name = self.name.replace("_", "-")
        return f"--{name}/--no-{name}" if self.paired else f"--{name}"


FLAGS = (
    Flag(name="data", key="data.source", group="data", metavar="SOURCE", common=True),
    Flag(name="image_size", key="data.image_size", group="data", metavar="N", common=True),
    Flag(name="flip", key="data.flip", group="data", paired=True, common=True),
    Flag(name="crop_padding", key="data.crop_padding", group="data", metavar="N"),
    Flag(name="resize", key="data.resize", group="data", metavar="HOW"),
    Flag(name="strict", key="data.strict", group="data", switched=True),
    Flag(name="normalize", key="data.normalize", group="data", metavar="HOW"),
    Flag(name="no_augment", key="data.augment", group="data", switched=False, doc="take the images as they are"),
    Flag(name="model", key="model.name", group="model", metavar="NAME", common=True),
    Flag(name="width", key="model.width", group="model", metavar="N"),
    Flag(name="modules", key="model.modules", group="model", metavar="N", common=True),
    Flag(name="blocks", key="model.blocks", group="model", metavar="N"),
    Flag(name="head", key="model.head", group="model", metavar="NAMES", common=True),
    Flag(name="shared_head", key="model.shared_head", group="model", switched=True),
    Flag(name="pretrained", key="model.pretrained", group="model", metavar="PATH", common=True),
    Flag(name="regime", key="train.regime", group="training", metavar="NAME", common=True),
    Flag(name="epochs", key="train.epochs", group="training", metavar="EPOCHS", common=True),
    Flag(name="laps", key="train.laps", group="training", metavar="N"),
    Flag(name="batch_size", key="train.batch_size", group="training", metavar="N", common=True),
    Flag(name="lr", key="train.lr", group="training", metavar="RATE", common=True),
    Flag(name="loss", key="loss.name", group="training", metavar="NAME"),
    Flag(name="tau", key="transport.tau", group="training", metavar="TAU"),
    Flag(
        name="no_transport",
        key="transport.enabled",
        group="training",
        switched=False,
        doc="leave the transport term out (VanGL)",
    ),
    Flag(name="freeze", key="train.freeze", group="training", metavar="N", common=True),
    Flag(name="grow", key="train.grow", group="training", switched=True),
    Flag(name="recalibrate", key="train.recalibrate", group="training", switched=True),
    Flag(name="views", key="train.views", group="training", metavar="N"),
    Flag(name="cache", key="train.cache", group="training", metavar="WHERE"),
    Flag(name="seed", key="train.seed", group="training", metavar="N", common=True),
    Flag(name="device", key="train.device", group="training", metavar="NAME", common=True),
    Flag(name="precision", key="train.precision", group="training", metavar="NAME"),
    Flag(name="threads", key="train.threads", group="training", metavar="N", common=True),
    Flag(name="budget_mb", key="budget.mb", group="budget", metavar="MIB", common=True),
    Flag(name="disk_mb", key="budget.disk_mb", group="budget", metavar="MIB", common=True),
    Flag(name="chunk", key="budget.chunk", group="budget", metavar="N"),
    Flag(name="resident", key="budget.resident", group="budget", metavar="N"),
    Flag(name="allow", key="budget.allow", group="budget", metavar="NAMES"),
    Flag(name="without", key="budget.without", group="budget", metavar="NAMES"),
    Flag(
        name="no_probe",
        key="budget.probe",
        group="budget",
        switched=False,
        doc="plan by estimates, without measuring steps",
    ),
    Flag(name="cgroup", key="budget.cgroup", group="budget", switched=True),
    Flag(name="force", key="budget.force", group="budget", switched=True),
)


@dataclass(frozen=True, kw_only=True)
class SettingReference:
    """What a list of options says of one setting, all of it from the setting's field.

    Args:
        key: its `section.key`.
        doc: one sentence.
        more: the forms and units that only a full list has; may be empty.
        takes: the values that it takes, in words.
        default: what stands where nothing is given, in words.
        words: the words that it takes, or that the items of its list may be; none where it takes other values.
    """

    key: str
    doc: str
    more: str
    takes: str
    default: str
    words: tuple[str, ...]


def setting_references() -> dict[str, SettingReference]:
    """Describe every setting of a configuration, by `section.key`."""
    return {
        f"{section}.{key}": _reference(f"{section}.{key}", about, hints[key], defaults[key])
        for section, kind in SECTIONS.items()
        for hints, defaults in [(typing.get_type_hints(kind), {one.name: one.default for one in fields(kind)})]
        for key, about in settings_of(kind).items()
    }


def _reference(key: str, about: Setting, hint: object, default: object) -> SettingReference:
    return SettingReference(
        key=key,
        doc=about.doc,
        more=about.more,
        takes=expected(hint, about),
        default=about.unset if default is None or default == () else plain(default),
        words=words_of(hint),
    )


def plain(value: object) -> str:
    """A value as it stands in a list of options."""
    if isinstance(value, tuple):
        return ", ".join(map(plain, value))
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def configuration(
    flags: Mapping[str, object],
    *,
    profile: str | None = None,
    recipe: str | None = None,
    config_file: Path | None = None,
    values: Iterable[sources.Source] = (),
    mistakes: Sequence[str] = (),
) -> RunConfig:
    """Build the configuration of defaults < profile < recipes < file < `values` < `flags`.

    Args:
        flags: by name; None, and False for a switch, stand for one that was not given.
        profile: a board's, by name or file.
        recipe: names, separated by commas.
        config_file: in TOML.
        values: by section and key.
        mistakes: sentences about mistakes that were found before; they are told together with those found here.

    Raises:
        UsageError: with one line for each mistake.
        InputError: a file cannot be read.
    """
    named, unknown = _named_sources(profile, recipe)
    file = [sources.read_toml(config_file)] if config_file else []
    given, wrong = _sections(flags)
    return sources.resolve(*named, *file, *values, given, mistakes=[*mistakes, *unknown, *wrong])


def _named_sources(profile: str | None, recipe: str | None) -> tuple[list[sources.Source], list[str]]:
    """What a profile and recipes give, and a sentence for each of the two that cannot be used."""
    named: list[sources.Source] = []
    mistakes = []
    try:
        named += [sources.read_profile(profile)] if profile else []
    except UsageError as error:
        mistakes.append(f"{error.message}. {error.hint}")
    try:
        named += sources.read_recipes(recipe) if recipe else []
    except UsageError as error:
        mistakes.append(f"{error.message}. {error.hint}")
    return named, mistakes


def _sections(flags: Mapping[str, object]) -> tuple[Document, list[str]]:
    """The settings that flags give, and a sentence for each flag that is wrong."""
    known = {flag.name: flag for flag in FLAGS}
    sections: Document = {}
    mistakes = []
    for name, value in flags.items():
        if name not in known:
            near = nearest(name, known)
            mistakes.append(f"{name} is not an option" + (f"; did you mean {near[0]}?" if near else ""))
            continue
        flag = known[name]
        if value is None or (flag.switched is not None and value is False):
            continue
        section, _, key = flag.key.partition(".")
        sections.setdefault(section, {})[key] = value if flag.switched is None else flag.switched
    return sections, mistakes
