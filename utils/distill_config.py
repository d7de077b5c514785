"""Whether a training learns from a teacher, and how: settings, without torch."""

from dataclasses import dataclass, fields

from model.setting import setting


@dataclass(frozen=True)
class DistillConfig:
    """Distillation (Hinton et al. 2015). ValueError for settings without a teacher."""

    teacher: str = setting("", "a run whose predictions are learnt beside the text")
    distill_alpha: float = setting(0.5, "share of the teacher in the loss; the text has the rest")
    distill_temperature: float = setting(2.0, "softens the predictions that are compared")

    def __post_init__(self) -> None:
        if not 0 <= self.distill_alpha <= 1:
            raise ValueError(f"distill_alpha={self.distill_alpha} must be in [0, 1], a share")
        if self.distill_temperature <= 0:
            raise ValueError(f"distill_temperature={self.distill_temperature} must be positive")
        set_too = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        if set_too and not self.teacher:
            raise ValueError(f"{set_too[0]} is of distillation; name a run by --teacher")
