"""Optional packages, imported where they are used."""

from importlib import import_module
from typing import Any


def needed(name: str, install: str = '"mosaic-of-motifs[study]"') -> Any:
    """The module of that name.

    Raises:
        ImportError: if its package is not installed; says what installs it.
    """
    package = name.partition(".")[0]
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise ImportError(
            f"{package} is needed, but not installed: pip install {install}"
        ) from None
