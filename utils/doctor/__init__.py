"""What looks wrong with a run, and what to try: `python -m utils.doctor`."""
