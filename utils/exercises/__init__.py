"""Graded exercises: one function of ours is emptied, you write it, our tests judge it."""
