"""The command `edge-trgl`: its verbs, and how their results read."""
