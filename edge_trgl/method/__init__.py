"""What TRGL asks of a block: the transport cost, and the losses beside it."""
