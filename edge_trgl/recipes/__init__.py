"""Hyperparameters by name: one TOML file for each table of the paper or way to train."""
