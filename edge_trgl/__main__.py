"""`python -m edge_trgl` is the command `edge-trgl`."""

from edge_trgl.cli.app import main

main()
