"""What each module costs, counted from one step."""
