"""From counting to the Transformer: each rung a short file that runs, all scored on one text."""

import os

# before NumPy and torch are loaded: at these sizes a second thread doubles the work, saves no time
os.environ.setdefault("OMP_NUM_THREADS", "1")
