"""A run's folder, the facts in its database, and its summary."""
