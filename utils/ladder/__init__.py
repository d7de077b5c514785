"""From counting to the Transformer: each rung a short file that runs, all scored on one text."""
