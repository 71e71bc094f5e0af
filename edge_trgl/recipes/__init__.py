"""Hyperparameters by name: one TOML file each, for a table of the paper or a way to train."""
