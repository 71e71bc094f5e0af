"""Prove that the budget is kept, and kill runs at random moments."""
