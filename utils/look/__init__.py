"""Inside a model while it reads a text: attention, losses, logit lens, as arrays and a picture."""
