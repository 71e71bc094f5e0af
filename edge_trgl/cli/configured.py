"""The options of a configuration, for the verbs that take one: `train`, `pretrain` and `plan`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge_trgl.cli.verb import Rows, Verb, option
from edge_trgl.config.flags import FLAGS, Flag, SettingReference, configuration, plain, setting_references
from edge_trgl.config.sections import RunConfig
from edge_trgl.config.sources import Source, parse_setting
from edge_trgl.runtime.errors import UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Function = TypeVar("Function", bound=Callable[..., object])

MISTAKES = f"{__name__}.mistakes"
"""Key of the click context under which unknown options wait to be told with all other mistakes."""


class Given(click.types.StringParamType):
    """A value as the user wrote it: the configuration reads it and tells all mistakes at once.

    `words`: what a shell completes it to; empty for any text.
    """

    def __init__(self, words: tuple[str, ...] = ()) -> None:
        self._words = words

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """List the words that begin with what is typed so far."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(word) for word in self._words if word.startswith(incomplete)]


class ConfiguredVerb(Verb):
    """A verb that takes a configuration and tells every mistake in it at once."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line; unknown options are noted and left out."""
        while True:
            try:
                return super().parse_args(ctx, list(args))
            except click.NoSuchOption as error:
                near = f"; did you mean {error.possibilities[0]}?" if error.possibilities else ""
                ctx.meta.setdefault(MISTAKES, []).append(f"{error.option_name} is not an option{near}")
                args = _without(args, error.option_name)

    def settings(self) -> Rows:
        """List every setting that has no option of its own."""
        named = {flag.key for flag in FLAGS}
        return [
            (key, f"{about.doc}{_details(about)}{_default(about)}")
            for key, about in setting_references().items()
            if key not in named
        ]


def _without(args: list[str], name: str) -> list[str]:
    """The arguments without an unknown option and its value; these verbs take options only."""
    at = next(at for at, text in enumerate(args) if text.partition("=")[0] == name)
    has_value = "=" not in args[at] and at + 1 < len(args) and not args[at + 1].startswith("-")
    return [*args[:at], *args[at + 1 + has_value :]]


def configured(function: Function) -> Function:
    """Add every option of a configuration to a verb; `read_configuration` reads them."""
    return configured_by(FLAGS, {})(function)


def configured_by(flags: Sequence[Flag], defaults: Mapping[str, object]) -> Callable[[Function], Function]:
    """Return a decorator that adds these options of a configuration to a verb.

    `defaults`: by `section.key`, what the verb sets where nothing is given.
    """
    references = setting_references()
    for key, value in defaults.items():
        references[key] = replace(references[key], default=plain(value))

    def add(function: Function) -> Function:
        # Decorators list what they add from the last one to the first.
        for source in reversed(SOURCES):
            function = source(function)
        for flag in reversed(flags):
            function = _flag_option(flag, references[flag.key])(function)
        return function

    return add


SOURCES = (
    option(
        "--profile",
        metavar="NAME",
        group="Budget",
        help="a board's defaults: a name or a .toml file",
    ),
    option(
        "--recipe",
        metavar="NAMES",
        group="Training",
        help="hyperparameters by name: table14 or table14,end-to-end",
    ),
    option(
        "--config",
        "config_file",
        type=Path,
        metavar="FILE",
        group="Training",
        help="a .toml file with sections, as in run.toml",
    ),
    option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        group="Training",
        help="any setting, such as train.momentum=0.8",
    ),
)


def _flag_option(flag: Flag, about: SettingReference) -> Callable[[Function], Function]:
    common = {"group": flag.group.capitalize(), "common": flag.common, "help": flag.doc or about.doc}
    if flag.switched is not None or flag.paired:
        # A switch that was not given is None, as any other option.
        more = f" ({about.more})" if about.more and not flag.doc else ""
        return option(flag.option, flag.name, is_flag=True, default=None, more=more, **common)
    return option(
        flag.option,
        flag.name,
        type=Given(about.words),
        metavar=flag.metavar,
        more=_details(about),
        default_text=about.default,
        **common,
    )


def _details(about: SettingReference) -> str:
    more = f" ({about.more})" if about.more else ""
    explained = bool(about.words) and all(word in about.more for word in about.words)
    return more if about.takes == "text" or explained else f"{more}; {about.takes}"


def _default(about: SettingReference) -> str:
    return f" [{about.default}]" if about.default else ""


def read_configuration(given: dict[str, Any]) -> RunConfig:
    """Build the configuration from the values of the options that `configured` adds.

    Raises:
        UsageError: with one line for each mistake on the command line and in the files that it names.
    """
    flags = {flag.name: given[flag.name] for flag in FLAGS if flag.name in given}
    context = click.get_current_context(silent=True)
    mistakes = [] if context is None else list(context.meta.get(MISTAKES, ()))
    values: list[Source] = []
    for text in given["settings"]:
        try:
            values.append(parse_setting(text))
        except UsageError as error:
            mistakes.append(error.message)
    return configuration(
        flags,
        profile=given["profile"],
        recipe=given["recipe"],
        config_file=given["config_file"],
        values=values,
        mistakes=mistakes,
    )
