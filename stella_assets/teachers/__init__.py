"""Step 2: texts -> teacher vectors, never computed twice -> one concatenated, versioned table -> statistics."""
