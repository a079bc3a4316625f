"""Step 5: the published model folder."""
