"""Measurements kept in a file as they come, so that an interrupted command can continue."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tools.common.machine import today

Item = dict[str, Any]


class Book:
    """Items by section and key. `settings`: under which all of them were measured; others begin a new book.

    `file`: None keeps nothing.
    """

    def __init__(self, file: Path | None, settings: Item) -> None:
        self._file = file
        self._settings = settings
        self._sections: dict[str, dict[str, Item]] = {}
        if file is not None and file.is_file():
            kept = json.loads(file.read_text())
            if kept.get("settings") == settings:
                self._sections = kept["sections"]

    def find(self, section: str, key: str) -> Item | None:
        """The item, None where there is none or where it failed: that is measured again."""
        item = self._sections.get(section, {}).get(key)
        return None if item is None or "error" in item else item

    def put(self, section: str, key: str, item: Item) -> Item:
        """Keep an item, in the file too; returns it."""
        self._sections.setdefault(section, {})[key] = item
        self.save({})
        return item

    def items(self, section: str) -> list[Item]:
        """All of a section, as they came."""
        return list(self._sections.get(section, {}).values())

    def document(self, more: Item) -> Item:
        """Everything, with `more`."""
        return {"date": today(), "settings": self._settings, **more, "sections": self._sections}

    def save(self, more: Item) -> None:
        """Write the file, with `more`."""
        if self._file is None:
            return
        new = self._file.with_name(self._file.name + ".new")
        new.write_text(json.dumps(self.document(more), indent=1) + "\n")
        os.replace(new, self._file)  # noqa: PTH105 - the atomic one
