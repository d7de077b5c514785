"""The training of a run: objective, step, optimizer, evaluation, checkpoints, budget."""
