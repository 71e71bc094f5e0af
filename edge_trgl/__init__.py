"""edge-trgl: train networks one module at a time, on the board itself, under one memory budget."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["EdgeTrglError", "Limits", "Training", "clean", "plan", "train"]


def __getattr__(name: str) -> Any:
    # When it is asked for: the packages for what was exported load nothing that trains.
    if name in __all__:
        from edge_trgl import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
