"""The error for damaged files."""

import os


class FormatError(ValueError):
    """A file is damaged or of another format; says which file, where in it, and what is wrong.

    Example:
        >>> from pathlib import Path
        >>> Path("net.momos").write_bytes(b"not a mosaic")
        12
        >>> try:
        ...     momos.load("net.momos")
        ... except momos.FormatError as error:
        ...     print(error)
        net.momos: header: must have 112 bytes at least, got 12 (is this a .momos file?)
    """

    def __init__(self, path: str | os.PathLike[str], section: str, problem: str) -> None:
        super().__init__(f"{os.fspath(path)}: {section}: {problem}")
        self.path = os.fspath(path)
        self.section = section
        self.problem = problem

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.path, self.section, self.problem)
