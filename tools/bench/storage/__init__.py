"""What boundaries and modules on disk cost."""
