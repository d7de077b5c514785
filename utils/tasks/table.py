"""Which objective a training has, and all that follows from it: a table."""

from data.mixture import Mixture
from utils.config import Settings
from utils.tasks.classify import Classify
from utils.tasks.masked import Masked
from utils.tasks.next_token import NextToken

Task = NextToken | Masked | Classify
TASKS: dict[str, type[Task]] = {"next": NextToken, "masked": Masked, "classify": Classify}


def task_of(settings: Settings, mixture: Mixture) -> Task:
    """What these settings learn from a text."""
    return TASKS[settings.objective.objective](settings, mixture)
