"""Student kinds: what is trained, saved and released."""
