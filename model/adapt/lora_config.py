"""Which adapters a training adds to a model: settings, without torch."""

from dataclasses import dataclass, fields

from model.setting import setting

TARGETS = ("qkv", "proj", "gate", "up", "down")


@dataclass(frozen=True)
class LoRAConfig:
    """Low-rank adapters (Hu et al. 2021). ValueError for what cannot be built."""

    lora: int = setting(0, "rank r of LoRA's adapters, which alone are trained; 0 = none, all is")
    lora_alpha: float = setting(0.0, "adapters count alpha / r; 0 = 2 r")
    lora_dropout: float = setting(0.0, "dropout of what adapters read")
    lora_targets: str = setting(
        "all", "linear layers with adapters: all, or some of qkv proj gate up down"
    )
    lora_rs: bool = setting(False, "adapters count alpha / sqrt(r) (rank-stabilised)")

    def __post_init__(self) -> None:
        if self.lora < 0:
            raise ValueError(f"lora={self.lora} must be a rank of 1 or more, or 0 for no adapters")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout={self.lora_dropout} must be in [0, 1)")
        if not 0 <= self.lora_alpha < float("inf"):
            raise ValueError(f"lora_alpha={self.lora_alpha} must be positive, or 0 for 2 r")
        if unknown := [name for name in self.targets if name not in TARGETS]:
            known = ", ".join(TARGETS)
            raise ValueError(f"lora_targets has {unknown[0]!r}; give all, or some of {known}")
        set_too = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        if set_too and not self.lora:
            said = f"{set_too[0]}={getattr(self, set_too[0])}"
            raise ValueError(f"{said} is of adapters, but lora=0; give a rank, say --lora 16")
        if not self.targets:
            raise ValueError("lora_targets names no layer; give all")

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the linear layers in a block that get an adapter."""
        return TARGETS if self.lora_targets == "all" else tuple(self.lora_targets.split())

    @property
    def alpha(self) -> float:
        """What s is computed from: 2 r unless it is set."""
        return self.lora_alpha or 2.0 * self.lora

    @property
    def scale(self) -> float:
        """The factor s of an adapter: alpha / r, or alpha / sqrt(r) (Kalajdzievski 2023)."""
        return self.alpha / (self.lora**0.5 if self.lora_rs else self.lora)
