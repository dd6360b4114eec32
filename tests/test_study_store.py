"""Run folders: finished ones are read as they were written, others are named with a reason."""

import json
import os
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from momos.study.cell import Cell
from momos.study.schema import LONGEST
from momos.study.store import (
    Asked,
    begin,
    failed,
    failure,
    finished,
    read,
    read_all,
    write_failure,
    write_json,
    write_lines,
)

CELL = Cell(task="digits", treatment="prune", settings={"sparsity": 0.5})
ASKED: Asked = {"name": "simplify", "settings": {"seeds": 5}}
RESULT: dict[str, Any] = {
    "metric_name": "accuracy",
    "metric": 0.9,
    "higher_is_better": True,
    "num_weights": 10,
    "file": "pruned.bin",
    "lengths": {"dense": 320, "file": 80},
    "motifs_used": None,
    "measures": [
        {"name": "signs", "kind": "code", "unit": "bits", "tensor": "", "value": 5.0}
    ],
    "seconds": 1.5,
}


def made(root: Path, cell: Cell = CELL, result: dict[str, Any] | None = RESULT) -> Path:
    folder = root / cell.folder
    begin(folder, cell, recipe=ASKED, environment={"commit": "abc"})
    write_lines(folder / "history.jsonl", [{"epoch": 0, "metric": 0.1}])
    if result is not None:
        write_json(folder / "result.json", result)
    return folder


def test_a_finished_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = made(tmp_path)
    found = read(folder)
    assert finished(folder)
    assert found.cell == CELL
    assert (found.recipe, found.metric, found.factor) == (ASKED, 0.9, 4.0)
    assert found.history == ({"epoch": 0, "metric": 0.1},)
    row = found.measure("signs")
    assert row is not None
    assert row["value"] == 5.0
    assert found.measure("nothing") is None
    assert found.environment == {"commit": "abc"}
    assert not list(folder.glob("*.part"))


def test_a_run_without_a_result_is_not_finished(tmp_path: Path) -> None:
    folder = made(tmp_path, result=None)
    assert not finished(folder)
    with pytest.raises(ValueError, match="it has not finished"):
        read(folder)
    (folder / "failure.txt").write_text("Traceback\nValueError: weights must be finite\n")
    with pytest.raises(ValueError, match="it failed: ValueError: weights must be finite"):
        read(folder)


def test_a_reason_is_read_as_it_was_written_in_one_line(tmp_path: Path) -> None:
    said = write_failure(tmp_path / "new", "RuntimeError: two\n  lines\n")
    assert said == failure(tmp_path / "new") == "RuntimeError: two lines"
    assert len(write_failure(tmp_path, "x" * 10_000)) == len(failure(tmp_path)) == LONGEST


def test_a_reason_of_a_stranger_is_bounded_and_waited_for_by_nobody(tmp_path: Path) -> None:
    reason = tmp_path / "failure.txt"
    os.mkfifo(reason)
    assert failed(tmp_path)
    assert failure(tmp_path) == "failure.txt must be an ordinary file"
    reason.unlink()
    reason.write_bytes(b"x" * (2**20 + 1))
    assert failure(tmp_path) == "failure.txt must have at most 1048576 bytes, got 1048577"
    reason.write_bytes(b"\n \n")
    assert failure(tmp_path) == "the reason is missing"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("result.json", "{", "result.json is no JSON"),
        ("result.json", "[]", "result.json must hold an object, got list"),
        ("result.json", "{}", "is damaged"),
        ("cell.json", "{}", "it lacks 'format'"),
        ("cell.json", '{"format": 2}', "format must be 1, got 2"),
        ("history.jsonl", "nonsense", "is damaged"),
        ("history.jsonl", None, "is damaged"),
    ],
)
def test_damage_is_told_with_the_folder(
    name: str, content: str | None, message: str, tmp_path: Path
) -> None:
    folder = made(tmp_path)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read(folder)
    assert str(folder) in str(caught.value)


def test_all_runs_in_folders_are_found_once_and_broken_ones_named(tmp_path: Path) -> None:
    good = made(tmp_path / "one")
    made(tmp_path / "two" / "deeper", Cell(task="digits", seed=1))
    left = made(tmp_path / "two", Cell(task="digits", seed=2), result=None)
    found, broken = read_all([tmp_path, good, tmp_path / "one"])
    assert [run.cell.seed for run in found] == [0, 1]
    assert [(b.folder, "not finished" in b.reason) for b in broken] == [(left, True)]


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="runs must be in a folder"):
        read_all([tmp_path / "nothing"])


def test_writers_at_once_never_mix_and_leave_nothing(tmp_path: Path) -> None:
    path, values = tmp_path / "plane.json", [[n] * 2000 for n in range(4)]
    failures: list[Exception] = []

    def write(value: list[int]) -> None:
        try:
            for _ in range(25):
                write_json(path, value)
                assert json.loads(path.read_text()) in values
        except (OSError, ValueError, AssertionError) as error:
            failures.append(error)

    writers = [Thread(target=write, args=(value,)) for value in values]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failures
    assert [each.name for each in tmp_path.iterdir()] == ["plane.json"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(UnicodeEncodeError):
        write_json(tmp_path / "a.json", "\ud800")
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "1\n"


def test_a_recipe_that_is_text_is_its_name(tmp_path: Path) -> None:
    folder = made(tmp_path)
    described = json.loads((folder / "cell.json").read_text())
    write_json(folder / "cell.json", described | {"recipe": "simplify(seeds=5)"})
    assert read(folder).recipe == {"name": "simplify(seeds=5)", "settings": {}}
