"""What is raised when a file is not what it must be."""

import os


class FormatError(ValueError):
    """A file that is damaged, or not of its format: which one, where in it, and what is wrong."""

    def __init__(self, path: str | os.PathLike[str], section: str, problem: str) -> None:
        super().__init__(f"{os.fspath(path)}: {section}: {problem}")
        self.path = os.fspath(path)
        self.section = section
        self.problem = problem

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.path, self.section, self.problem)
