"""Kinds for stella-distil, found through the entry point group `stella_distil.kinds`."""
