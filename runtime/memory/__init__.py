"""What a process takes: its memory, its device, and the limits that hold it."""
