"""The release: the gate, the published model folder, its promotion, and what must not be deleted."""
