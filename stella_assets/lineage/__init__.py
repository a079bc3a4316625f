"""Lineage: what two artefacts differ in, whether a release can be made again, and what a run would make."""
