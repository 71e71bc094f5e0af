"""Planning a run: what fits the budget and the disk, and the fastest of that."""
