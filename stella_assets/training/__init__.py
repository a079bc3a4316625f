"""Step 3: the student learns to reproduce the concatenated vectors, stage by stage."""
