"""The public names of momos: what it, `momos.complexity` and its integrations re-export."""

import inspect
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

import momos.integrations


def public_modules() -> list[str]:
    integrations = iter_modules(momos.integrations.__path__, "momos.integrations.")
    return ["momos", "momos.complexity", *(module.name for module in integrations)]


def public_names() -> dict[str, object]:
    """Every public name with its value; a value that has several, under the first."""
    names: dict[str, object] = {}
    known: set[int] = set()
    for module in public_modules():
        content = vars(import_module(module))
        for name in content.get("__all__", content):
            value = content[name]
            if name.startswith("_") or isinstance(value, ModuleType) or id(value) in known:
                continue
            names[f"{module}.{name}"] = value
            known.add(id(value))
    return names


def undocumented(name: str, value: object) -> list[str]:
    """`name`, and its public methods and properties, as far as they have no docstring."""
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return []  # a constant
    found = [] if inspect.getdoc(value) else [name]
    if inspect.isclass(value):
        found += [
            f"{name}.{member}"
            for member, one in vars(value).items()
            if not member.startswith("_")
            and (inspect.isroutine(one) or isinstance(one, property))
            and not inspect.getdoc(getattr(value, member))
        ]
    return found
