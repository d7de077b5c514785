"""What bench.py measures, beside which peers, and how it is timed."""
