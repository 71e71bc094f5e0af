"""Durable, checksummed files: modules, boundaries, and the database of a run."""
