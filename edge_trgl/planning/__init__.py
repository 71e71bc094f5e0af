"""What each module costs, counted and measured, and the plan of a run."""
