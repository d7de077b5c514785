"""How a text is drawn unless somebody says otherwise: sample.py, utils.judge, a run's own texts.

Chosen by counting the stories that keep all rules of utils.judge: docs/sampling.md.
"""

from typing import Any

SAMPLING: dict[str, Any] = {"temperature": 0.3, "top_k": 50, "top_p": None, "min_p": None}
