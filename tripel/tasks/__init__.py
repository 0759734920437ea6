"""Tasks: examples to batches, and scores."""
