"""What runs in child processes, one at a time: each job reads a run folder and reports through messages."""
