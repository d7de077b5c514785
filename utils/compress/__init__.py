"""Runs made smaller: weights in integers."""
