"""Trainings that fail on purpose, each beside its cure: `python -m utils.failures`."""
