"""The GPT again, in NumPy alone, forward and backward by hand: to be read, and checked against."""
