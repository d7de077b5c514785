"""Text files -> token files -> batches. May import tok."""
