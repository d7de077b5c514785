"""Replaces layers of a finished model, and puts them back: `model.gpt` never learns its names."""
