"""One module's local step: forward, loss, backward, update."""
