"""Quantised models: ranges of activations, sites, integer weights."""
