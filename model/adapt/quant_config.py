"""What training rounds weights to (`model.adapt.qat`): settings, without torch."""

from dataclasses import dataclass, fields
from typing import Literal

from model.setting import check_choices, setting

EMBEDDING = 4, 8, 32


@dataclass(frozen=True)
class QuantizeConfig:
    """Quantization-aware training. ValueError for settings that do not go together."""

    quantize: Literal["none", "int8", "int4"] = setting(
        "none", "train for weights in so many bits, rounded in every forward pass"
    )
    quantize_group: int = setting(32, "weights of int4 that share a scale: 32, 64 or 128")
    quantize_embedding: int = setting(8, "bits of embedding and head: 4, 8, or 32 for floats")

    def __post_init__(self) -> None:
        check_choices(self)
        if self.quantize_embedding not in EMBEDDING:
            raise ValueError(f"quantize_embedding={self.quantize_embedding} must be 4, 8 or 32")
        if self.quantize == "int8" and self.quantize_embedding == 4:
            raise ValueError("quantize_embedding=4 is for quantize=int4; leave it out")
        defaults = {f.name: f.default for f in fields(self)[1:]}
        if self.quantize == "int8":
            defaults.pop("quantize_embedding")
        odd = [name for name, value in defaults.items() if getattr(self, name) != value]
        if odd and self.quantize != "int4":
            raise ValueError(f"{odd[0]}={getattr(self, odd[0])} goes with --quantize int4")

    @property
    def bits(self) -> int:
        """Of a weight in the blocks: 4, 8, or 0 where nothing is rounded."""
        return {"none": 0, "int8": 8, "int4": 4}[self.quantize]

    @property
    def how(self) -> tuple[int, int, int]:
        """Bits, group and embedding's bits, as `model.adapt.quant.quantize` takes them."""
        return self.bits, self.quantize_group, self.quantize_embedding

    def __str__(self) -> str:
        """In words: `4 bits in groups of 32, embeddings 8 bits`."""
        groups = f" in groups of {self.quantize_group}" if self.bits == 4 else ""
        other = self.quantize_embedding
        embeddings = f"{other} bits" if other != 32 else "as they are"
        return f"{self.bits} bits{groups}, embeddings {embeddings}"
