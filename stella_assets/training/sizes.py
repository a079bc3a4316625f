"""Sizes that an estimate needs without loading torch."""

MAX_BATCH_TEXTS = 65_536
"""Of a batch, negatives included: a loss that compares each with all others has a matrix of 17 GB then."""
DEV_TEXTS = 1024
"""Dev texts that a stage is measured on, at most."""
# A checkpoint has the weights, two moments of AdamW and the moving average. Two of them are kept, with a draft next to
# them until it is whole, and two copies of the best weights. The artefact is smaller than a draft, and written later.
STATES = 3 * 4 + 2
"""Sizes of the student that its optimiser and its checkpoints take on the disk, at most."""
