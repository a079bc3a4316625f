"""The corpus: sources are read, cleaned, decontaminated, deduplicated and mixed into texts with id, role and split."""
