"""Step 4: mteb tasks, scores of every model at every dimension, retention, and the report."""
