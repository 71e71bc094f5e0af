"""edge-trgl: train networks one module at a time, on the board itself, under one memory budget."""

__version__ = "0.1.0"
