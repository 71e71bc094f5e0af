"""A verb of the command: its options in groups, the common ones in `--help` and every one in `--help-all`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., object])

Rows = Sequence[tuple[str, str]]
"""What is listed under one heading: an option or a setting, and what it means."""


class GroupedOption(click.Option):
    """An option that stands under a heading.

    Args:
        group: the heading.
        common: whether `--help` lists it; `--help-all` always does.
        more: what only `--help-all` says, after the help text; may be empty.
        default_text: what stands where the option is not given; may be empty.
    """

    def __init__(
        self,
        declarations: Sequence[str],
        *,
        group: str = "Options",
        common: bool = True,
        more: str = "",
        default_text: str = "",
        **attributes: Any,
    ) -> None:
        super().__init__(declarations, **attributes)
        self.group = group
        self.common = common
        self.more = more
        self.default_text = default_text

    def row(self, ctx: click.Context, *, full: bool) -> tuple[str, str]:
        """The option and its help text, with everything that is known of it if `full`."""
        name = "/".join((self.opts[0], *self.secondary_opts))
        name = name if self.is_flag else f"{name} {self.make_metavar(ctx)}"
        default = f" [{self.default_text}]" if self.default_text else ""
        return name, f"{self.help}{self.more if full else ''}{default}"


class Verb(click.Command):
    """A verb with `--help` for its common options, on one screen, and `--help-all` for every one."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the options and arguments, `--help-all` and `--help` among them."""
        every = click.Option(
            ["--help-all"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=self._show_everything,
            help="Show every option and exit.",
        )
        return [every, *super().get_params(ctx)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the common options, in groups."""
        self._write_options(ctx, formatter, full=False)

    def settings(self) -> Rows:
        """What `--help-all` lists beside options: settings that have no option; none unless a verb says so."""
        return ()

    def _show_everything(self, ctx: click.Context, parameter: click.Parameter, value: object) -> None:
        if not value or ctx.resilient_parsing:
            return
        formatter = ctx.make_formatter()
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        self._write_options(ctx, formatter, full=True)
        if self.settings():
            with formatter.section("Settings without an option (--set NAME=VALUE)"):
                formatter.write_dl(self.settings())
        click.echo(formatter.getvalue().rstrip("\n"))
        ctx.exit()

    def _write_options(self, ctx: click.Context, formatter: click.HelpFormatter, *, full: bool) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for option in self.params:
            if isinstance(option, GroupedOption) and (full or option.common):
                groups.setdefault(option.group, []).append(option.row(ctx, full=full))
        for heading, rows in groups.items():
            with formatter.section(heading):
                formatter.write_dl(rows)
        if not full:
            formatter.write("\n--help-all lists every option and what it takes.\n")


def option(*declarations: str, **attributes: Any) -> Callable[[Function], Function]:
    """Add a `GroupedOption` to a verb."""
    return click.option(*declarations, cls=GroupedOption, **attributes)
