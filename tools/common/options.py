"""Argument parser of a tool."""

from __future__ import annotations

import argparse


def command_line(name: str, document: str | None) -> argparse.ArgumentParser:
    """A parser for `python -m tools.NAME`, whose help is the module's docstring.

    Args:
        name: of the module, below `tools`.
        document: its `__doc__`; the indented command lines are left out, as argparse prints the usage itself.
    """
    paragraphs = (document or "").strip().split("\n\n")
    return argparse.ArgumentParser(
        prog=f"python -m tools.{name}",
        description="\n\n".join(text for text in paragraphs if not text.startswith(" ")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
