"""System checks."""


def connect() -> None:
    """Placeholder until the checks module lands."""
