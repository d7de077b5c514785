"""What a model can do, beside its loss: skills, rules kept, use of its context (eval.py)."""
