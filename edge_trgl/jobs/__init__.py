"""The jobs that run in child processes, one at a time; each reads a run's folder and reports through messages."""
