"""Studies: one recipe with several settings and seeds, compared."""

STUDY_ASSET = "study"
"""The asset that compares the variants of a recipe. It is not a step of the graph."""
