"""A file of results, and the line under a table that says where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tools.common.programs import RESULTS
from tools.results.markdown import table


def document(name: str) -> dict[str, Any]:
    """The results in NAME.json."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def origin(name: str, command: str) -> str:
    """Of NAME.json: the command that makes it, when and where that ran, and the file."""
    found = document(name)
    facts = [f"`python -m {command}`", found["date"], _machine(found), f"[{name}.json]({_link(name)})"]
    return "*" + " · ".join(filter(None, facts)) + "*"


def targets(items: Sequence[Mapping[str, Any]], sense: str = "at most") -> str:
    """What was aimed at, and whether it was met; `sense` of those that do not tell it themselves."""
    return table(
        ("goal", "limit", "measured", ""),
        (
            (
                item["name"],
                f"{item.get('bound', item.get('sense', sense))} {item['limit']:.4g}",
                f"{item['value']:.4g}",
                "met" if item["ok"] else "**missed**",
            )
            for item in items
        ),
    )


def _machine(found: Mapping[str, Any]) -> str:
    known = found.get("machine") or found.get("settings") or {}
    facts = []
    if known:
        threads = f"{known['threads']} thread{'s' if known['threads'] > 1 else ''}"
        facts += [f"{known['machine']}, {known['cpus']} CPUs, {threads}"]
        facts += [f"Python {known['python']}, torch {known['torch']}"]
    commit = known.get("commit") or found.get("commit")
    return ", ".join([*facts, *([f"commit {commit}"] if commit else [])])


def _link(name: str) -> str:
    return f"{name}.json".replace(" ", "%20")
