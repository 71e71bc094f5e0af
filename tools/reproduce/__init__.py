"""The paper's tables and figure 2, trained again."""
