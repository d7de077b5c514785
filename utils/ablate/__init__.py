"""Ablations: one baseline, one change at a time, over seeds and texts, by tokens and by time."""
