"""The parent process: it runs the jobs in order, and retries with less memory or disk."""
