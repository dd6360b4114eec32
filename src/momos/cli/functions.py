"""Functions of the user's own, from a script or a module, as `script.py:accuracy` names them.

Their code may raise anything: it is reported in one line that says where, and what they print
goes to standard error, so that standard output holds the result only.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

NAME = (
    "momos_evaluation"  # of a script among the modules: it cannot hide one of the same name
)


@contextmanager
def function_named(where: str) -> Iterator[Callable[..., Any]]:
    """The function that `where` names, while its folder is the first on `sys.path`.

    `where` is a file or a module, a colon, and a name in it. Whatever its code raises is a
    ValueError with the last line of the traceback.

    Raises:
        ValueError: if there is no such file, module or function.
    """
    place, colon, name = where.rpartition(":")
    if not colon or not place or not name:
        raise ValueError(
            f"a function must be named as script.py:function or module:function, got {where!r}"
        )
    path = Path(place)
    is_file = path.suffix == ".py" or len(path.parts) > 1 or path.is_file()
    if is_file and not path.is_file():
        raise ValueError(f"{place} must be a Python file, but there is none")
    folder = str(path.resolve().parent) if is_file else os.getcwd()
    sys.path.insert(0, folder)
    try:
        with _reported(where):
            module = _run(path) if is_file else importlib.import_module(place)
        yield _guarded(_function_of(module, place, name), where)
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _run(path: Path) -> ModuleType:
    """The module that the script at `path` defines; what only a main program does is left out.

    It is found by its own name, as pickle, dataclasses and processes that it starts need it.
    """
    name = path.stem if path.stem not in sys.modules else NAME
    file = str(path.resolve())
    sys.modules[name] = module = ModuleType(name)
    module.__file__ = file
    exec(compile(path.read_bytes(), file, "exec"), vars(module))
    return module


def _function_of(module: ModuleType, place: str, name: str) -> Callable[..., Any]:
    if not hasattr(module, name):
        others = [
            other
            for other, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", "") == module.__name__
        ]
        raise ValueError(
            f"{place} must have a function {name!r}, got "
            + (", ".join(map(repr, others[:5])) or "none")
        )
    function = getattr(module, name)
    if not callable(function):
        raise ValueError(
            f"{name!r} of {place} must be a function, got {type(function).__name__}"
        )
    return function


def _guarded(function: Callable[..., Any], where: str) -> Callable[..., Any]:
    def guarded(*arguments: Any) -> Any:
        with _reported(where):
            return function(*arguments)

    return guarded


@contextmanager
def _reported(where: str) -> Iterator[None]:
    """Makes what the user's code raises a ValueError of one line."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (Exception, SystemExit) as error:  # code of the user's may raise anything
        raise ValueError(f"{where} failed: {_last_line(error, where)}") from error


def _last_line(error: BaseException, where: str) -> str:
    """The last line of a traceback, and where: in the user's own file, if it was there at all."""
    line = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError) and error.filename:
        return f"{line} ({error.filename}, line {error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and "importlib" not in frame.filename
    ]
    script = str(Path(where.rpartition(":")[0]).resolve())
    own = [frame for frame in frames if frame.filename == script] or frames
    if not own:
        return line
    return f"{line} ({own[-1].filename}, line {own[-1].lineno}, in {own[-1].name})"
