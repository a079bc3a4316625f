"""Step 1: sources -> normalised, deduplicated texts with id, role and split."""
