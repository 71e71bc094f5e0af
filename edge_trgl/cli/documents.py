"""Documents of JSON, as jobs and files give them, read into the records that a verb prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from edge_trgl.runtime.records import read_record

T = TypeVar("T")


def part_of(document: Mapping[str, Any], kind: type[T]) -> T:
    """Read a document as the dataclass `kind`, which may have fewer fields than the document has keys."""
    names = {one.name for one in fields(kind)}  # type: ignore[arg-type]  # a dataclass, but T cannot say so
    return read_record(kind, {name: value for name, value in document.items() if name in names})
