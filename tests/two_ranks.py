"""One rank of test_ranks.py: trains as torchrun would have it, several times in one process.

Argument: the runs as JSON, a list of lists of flags. Exit status: the first that is not 0.
"""

import json
import os
import sys
from pathlib import Path

import torch

import train

torch.set_num_threads(1)
if __name__ == "__main__":
    port, runs = int(os.environ["MASTER_PORT"]), json.loads(sys.argv[1])
    import data.hashes

    data.hashes.CACHE = Path("cache")
    for i, flags in enumerate(runs):
        os.environ["MASTER_PORT"] = str(port + i)
        if status := train.main(flags):
            sys.exit(status)
