"""Whether several processes have been launched to do one thing together, by ``accelerate launch`` or ``torchrun``, and
whether this is the one that speaks and writes for all."""

import os


def processes() -> int:
    """How many there are; 1 where nothing was launched."""
    size = os.environ.get("WORLD_SIZE", "")
    return int(size) if "LOCAL_RANK" in os.environ and size.isdecimal() else 1


def is_first() -> bool:
    """Whether this process prints and writes files; one that is alone does."""
    return processes() == 1 or os.environ.get("RANK") == "0"
