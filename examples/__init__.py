"""Real data and trained networks that show what the accelerator does."""
