"""What a setting of sampling may be. Without torch: a flag is refused before that is imported."""


def check_sampling(
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
) -> None:
    """Raise ValueError for a value that no distribution can be made of."""
    if not temperature >= 0:
        raise ValueError(f"temperature={temperature} must be 0 (the most likely token) or more")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k} must be at least 1; leave it out to keep every token")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} must be in (0, 1]; leave it out to keep every token")
    if min_p is not None and not 0 <= min_p <= 1:
        raise ValueError(f"min_p={min_p} must be in [0, 1]; leave it out to keep every token")
    if not 1e-9 <= repetition_penalty <= 1e9:  # further off, logits leave float32
        raise ValueError(
            f"repetition_penalty={repetition_penalty} must be positive, 1e-9 to 1e9; 1 is none"
        )
