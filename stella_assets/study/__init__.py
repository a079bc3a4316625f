"""Studies: one recipe under several settings and seeds, compared."""
