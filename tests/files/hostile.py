"""Files that must be refused, each wrong in one way, which its name says."""

from files.one_change import BASE
from files.wrong_contents import streams, values
from files.wrong_manifest import claims, fields
from files.wrong_outside import json_texts, outside, sections


def hostile() -> dict[str, bytes]:
    """All of them, by what is wrong."""
    files: dict[str, bytes] = {}
    for make in (outside, sections, json_texts, fields, claims, streams, values):
        for short, file in make():
            name = f"{make.__name__}: {short}"
            assert name not in files, name
            files[name] = file
    assert BASE not in files.values()
    return files
