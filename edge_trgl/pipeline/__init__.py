"""The parent process: it orders the jobs, and retries with less."""
