"""The proof that the budget is kept, and kills at random moments."""
