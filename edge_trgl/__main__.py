"""`python -m edge_trgl` is the command `edge-trgl`."""

from edge_trgl.cli import main

main()
