"""Run folders that a stranger made: good ones with one value or one byte changed."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WRONG: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 1.5, -0.0, 1e308, -1e308, 5e-324, 10**400),
    *(float("nan"), float("inf"), float("-inf"), 2**63, "NaN", "7", "", "-1.5"),
    *(
        "\ud800",
        "a\x1b[2J\x07",
        "=1+1",
        "<script>x</script>",
        "$x_{$",
        "a|b\nc",
        "x" * 100_000,
    ),
    *([], {}, [None], {"": None}, ["a", 1], [[[]]], {"a": {"b": {"c": []}}}),
    *("../../etc/passwd", "/etc/passwd", "..", "result.json/", "a\0b"),
)
FILES = ("cell.json", "result.json", "history.jsonl")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there are values inside."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in inner:
        yield (*path, key)
        if isinstance(each, dict | list):
            yield from places(each, (*path, key))


def changed(value: Any, path: tuple[Any, ...], draw: random.Random) -> str:
    """A JSON text with another value at a place, or without it, or with another name."""
    *outer, last = path
    holder = value
    for key in outer:
        holder = holder[key]
    how = draw.random()
    if how < 0.1:
        del holder[last]
    elif how < 0.2 and isinstance(holder, dict):
        holder[draw.choice(["", "\x1b", "unknown", "=", "\ud800"])] = holder.pop(last)
    else:
        holder[last] = draw.choice(WRONG)
    return json.dumps(value)


def torn(text: str, draw: random.Random) -> bytes:
    """Bytes that are no longer what was written."""
    data, place = bytearray(text.encode()), draw.randrange(len(text))
    how = draw.randrange(6)
    if how == 0:
        return bytes(data[:place])
    if how == 1:
        data[place] ^= 1 << draw.randrange(8)
    elif how == 2:
        data[place:place] = bytes([draw.choice([0, 0x1B, 0x80, 0xFF, 0xE2])])
    elif how == 3:
        return b"\xff\xfe" + text.encode("utf-16-le")
    elif how == 4:
        return b"[" * 100_000 + bytes(data)
    else:
        data[place:place] = b"\n"
    return bytes(data)


def mutate(folder: Path, draw: random.Random) -> None:
    """Changes one value of one file, or its bytes."""
    path = folder / draw.choice(FILES)
    text = path.read_text("utf-8")
    if draw.random() < 0.2:
        path.write_bytes(torn(text, draw))
        return
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    number = draw.randrange(len(lines))
    value = json.loads(lines[number])
    lines[number] = changed(value, draw.choice([*places(value)]), draw)
    path.write_text("\n".join(lines) + "\n", "utf-8")


def mutants(good: list[Path], root: Path, count: int, seed: int) -> list[Path]:
    """So many mutants of good folders, each of a seed of its own, in folders under `root`."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        folder = root / f"mutant-{number:04}"
        shutil.copytree(good[number % len(good)], folder)
        described = json.loads((folder / "cell.json").read_text("utf-8"))
        described["cell"]["seed"] = 1000 + number // len(good)
        (folder / "cell.json").write_text(json.dumps(described), "utf-8")
        mutate(folder, draw)
        made.append(folder)
    return made
