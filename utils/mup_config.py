"""What muP does not go with: said before torch is imported."""


def check_mup(width: int, *, tied: bool, lora: int, sharded: bool) -> None:
    """Raise ValueError if settings are not for a muP of this base width; 0 is none."""
    how = ""
    if tied:
        how = "scales the head apart from the embedding; add --tie_weights false"
    if lora:
        how = "is of matrices that grow with the width; leave it out with --lora"
    if sharded:
        how = "was not tried with shards; use --parallel ddp"
    if width and how:
        raise ValueError(f"mup_width={width} {how}")
