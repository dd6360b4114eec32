"""The error for damaged files."""

import os


class FormatError(ValueError):
    """A file is damaged or of another format; says which file, where in it, and what is wrong."""

    def __init__(self, path: str | os.PathLike[str], section: str, problem: str) -> None:
        super().__init__(f"{os.fspath(path)}: {section}: {problem}")
        self.path = os.fspath(path)
        self.section = section
        self.problem = problem

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.path, self.section, self.problem)
