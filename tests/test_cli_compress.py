"""A step chosen by a function of the user's own, from a script or a module."""

import json
import sys
from pathlib import Path

import pytest
import torch
import typer
from commands import invoke
from safetensors.torch import load_file, save_file
from typer.testing import Result

import momos
from momos.cli.compress import compress_config, function_named, num_bytes
from momos.config import LatticeConfig, MosaicConfig

METRIC = """
from helper import percent

calls = []

def accuracy(state):
    print("printed by the script")
    calls.append(state)
    return percent(1 - float((state["a"] - calls[0]["a"]).square().mean()))

class Counter:
    def __call__(self, state):
        return 1

count = Counter()
number = 3

def raises(state):
    raise KeyError("fc.weight")

def deep(state):
    return json_of(state)

def json_of(state):
    import json
    return json.loads("{")

def interrupts(state):
    calls.append(state)
    if len(calls) == 3:
        raise KeyboardInterrupt
    return 1.0

def leaves(state):
    import sys
    sys.exit(2)

def nothing(state):
    pass

if __name__ == "__main__":
    raise SystemExit("only as a program")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a checkpoint, an old file, and a script in a folder of its own."""
    torch.manual_seed(0)
    save_file({"a": torch.randn(30, 20)}, tmp_path / "net.safetensors")
    (tmp_path / "x.momos").write_bytes(b"the old file")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "metric.py").write_text(METRIC)
    (tmp_path / "own" / "helper.py").write_text("def percent(x):\n    return 100 * x\n")
    monkeypatch.chdir(tmp_path)
    for name in ("metric", "helper", "own", "own.metric"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield tmp_path
    for name in ("metric", "helper", "own", "own.metric"):
        sys.modules.pop(name, None)


def compress(*options: str) -> Result:
    return invoke("compress", "net.safetensors", "x.momos", *options)


def test_a_function_of_a_script_chooses_the_step(folder):
    path = list(sys.path)
    done = compress("--evaluate", "own/metric.py:accuracy", "--max-drop", "1")
    assert done.exit_code == 0, done.output
    assert sys.path == path
    lines = done.stderr.splitlines()
    trials = [line for line in lines if line.startswith("momos: ")]
    assert trials[0] == "momos: dense: 2,400 bytes, metric 100, kept"
    assert trials[1].startswith("momos: step 0.07: ")
    assert "printed by the script" in lines
    assert "printed" not in done.stdout
    table = done.stdout[done.stdout.index("trial  ") :].splitlines()
    assert table[0].split() == ["trial", "bytes", "metric", "outcome"]
    assert table[1].split() == ["dense", "2400", "100", "kept"]
    assert len(trials) == next(n for n, line in enumerate(table) if not line) - 1
    steps = {line.split(":")[1] for line in trials if line.endswith("kept")}
    assert momos.inspect("x.momos").config is not None
    assert f" step {momos.inspect('x.momos').config['step']:.4g}" in steps


def test_trials_are_in_the_json(folder):
    done = compress("--evaluate", "own/metric.py:count", "--max-drop", "0", "--json")
    found = json.loads(done.stdout)
    dense, *steps = [trial["step"] for trial in found["trials"]]
    assert dense is None
    assert steps == pytest.approx([0.07, 0.28, 1.12, 4.48, 16])
    assert all(trial["kept"] for trial in found["trials"])
    assert found["config"]["step"] >= 4.48


def test_a_function_of_a_module_in_the_working_folder_is_found(folder):
    (folder / "own" / "__init__.py").touch()
    (folder / "helper.py").write_text("def percent(x):\n    return x\n")
    done = compress("--evaluate", "own.metric:accuracy", "--max-drop", "0.5")
    assert done.exit_code == 0, done.output


def test_a_script_that_is_named_as_a_module_hides_it_from_nobody(folder):
    (folder / "own" / "json.py").write_text("def f(state):\n    return 1\n")
    with function_named("own/json.py:f") as function:
        assert function({}) == 1
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            "metric.py",
            "must be named as script.py:function or module:function, got 'metric.py'",
        ),
        (":f", "must be named as script.py:function or module:function, got ':f'"),
        ("metric.py:f", "metric.py must be a Python file, but there is none"),
        ("own/absent.py:f", "own/absent.py must be a Python file, but there is none"),
        ("absent_module:f", "ModuleNotFoundError: No module named 'absent_module'"),
        (
            "own/metric.py:f",
            "own/metric.py must have a function 'f', got 'accuracy', 'Counter'",
        ),
        ("own/metric.py:number", "'number' of own/metric.py must be a function, got int"),
        (
            "own/metric.py:raises",
            "KeyError: 'fc.weight' (FOLDER/metric.py, line 19, in raises)",
        ),
        ("own/metric.py:deep", "char 1) (FOLDER/metric.py, line 26, in json_of)"),
        ("own/metric.py:leaves", "SystemExit: 2 (FOLDER/metric.py, line 36, in leaves)"),
        ("own/metric.py:nothing", "evaluate must return a number, got None for the dense"),
        ("own/wrong.py:f", "(FOLDER/wrong.py, line 2)"),
        (
            "own/fails.py:f",
            "NameError: name 'x' is not defined (FOLDER/fails.py, line 1, in",
        ),
    ],
)
def test_what_goes_wrong_is_told_in_one_line_and_an_old_file_stays(folder, where, message):
    (folder / "own" / "wrong.py").write_text("def f(state):\n  return (\n")
    (folder / "own" / "fails.py").write_text("x\n")
    done = compress("--evaluate", where, "--max-drop", "1")
    assert done.exit_code == 1, done.output
    lines = [line for line in done.output.splitlines() if line.startswith("momos: ")]
    assert message.replace("FOLDER", str(folder / "own")) in lines[-1]
    assert "Traceback" not in done.output
    assert Path("x.momos").read_bytes() == b"the old file"


def test_an_interrupt_leaves_an_old_file_and_exits_with_130(folder):
    done = compress("--evaluate", "own/metric.py:interrupts", "--max-drop", "1")
    assert done.exit_code == 130
    assert Path("x.momos").read_bytes() == b"the old file"
    names = {"net.safetensors", "x.momos", "own"}
    assert {path.name for path in folder.iterdir()} == names


F = ("--evaluate", "own/metric.py:accuracy")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (F, "--evaluate must be given with --max-drop, got it without (how much lower"),
        (("--max-drop", "1"), "--max-drop must be given with --evaluate, got it without"),
        ((*F, "--max-drop", "-1"), "max_drop must be at least 0 and finite, got -1"),
        ((*F, "--max-drop", "nan"), "max_drop must be at least 0 and finite, got nan"),
        (
            (*F, "--max-drop", "1", "--target-size", "9kB"),
            "--evaluate must be given without --target-size, got both",
        ),
        (
            (*F, "--max-drop", "1", "--target-factor", "9"),
            "--evaluate must be given without --target-factor, got both",
        ),
        (
            (*F, "--max-drop", "1", "--num-motifs", "9"),
            "--evaluate must be given without --num-motifs, got both",
        ),
        (
            ("--lossless", "--step", "1"),
            "--lossless must be given without --step, got both",
        ),
        (("--lossless", "--include", "*"), "--lossless must be given without --include"),
        (("--lossless", "--bits", "8"), "--lossless must be given without --bits"),
        (
            ("--lossless", *F, "--max-drop", "1"),
            "--lossless must be given without --evaluate",
        ),
        (
            ("--lossless", "--target-size", "9"),
            "--lossless must be given without --target-size",
        ),
    ],
)
def test_options_that_exclude_each_other_are_refused(folder, options, message):
    done = compress(*options)
    assert done.exit_code == 1
    assert message in done.output
    assert Path("x.momos").read_bytes() == b"the old file"


def test_lossless_keeps_all_and_says_what_it_saved(folder):
    save_file({"a": torch.randn(100, 90).bfloat16().float()}, "net.safetensors")
    done = compress("--lossless")
    assert done.exit_code == 0, done.output
    assert "dense, lossless: a" in done.stdout
    before = Path("net.safetensors").stat().st_size
    after = Path("x.momos").stat().st_size
    assert f"of the original: {after:,} bytes instead of {before:,}" in done.stdout
    shown = invoke("expand", "x.momos", "back.safetensors")
    assert shown.exit_code == 0, shown.output
    before, after = (load_file(f"{name}.safetensors") for name in ("net", "back"))
    assert torch.equal(before["a"], after["a"])


NONE = {"num_motifs": None, "capacity": None, "bits": None}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("100kB", 100_000),
        ("1.5MB", 1_500_000),
        ("2 MiB", 2 << 20),
        ("1gb", 10**9),
    ],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert num_bytes(text) == size


@pytest.mark.parametrize("text", ["", "kB", "-1", "1 kilo", "1e3", "1,5MB"])
def test_other_words_are_no_sizes(text):
    with pytest.raises(typer.BadParameter, match="must be like 100kB, 2MB or 4096, got"):
        num_bytes(text)


@pytest.mark.parametrize("text", ["9" * 400 + "GB", "5e18", str(2**62)])
def test_a_size_beyond_all_files_is_refused(text):
    with pytest.raises(typer.BadParameter, match="a size must be"):
        num_bytes(text)


def test_without_the_size_of_a_bank_it_is_a_lattice():
    assert compress_config({}, {"step": None}, NONE) == LatticeConfig()
    assert compress_config({"min_ndim": 1}, {"step": 0.3}, NONE) == LatticeConfig(
        step=0.3, min_ndim=1
    )


def test_with_it_a_bank_by_kmeans():
    expected = MosaicConfig(num_motifs=9, block_size=4, min_ndim=1, selection="kmeans")
    assert compress_config({}, {"step": None}, NONE | {"num_motifs": 9}) == expected


@pytest.mark.parametrize(
    ("config", "options", "words"),
    [
        ("{}", ["--lossless"], "--lossless must be given without --for, got both"),
        ("[]", [], "config.json must be an object, got list"),
        ("{", [], "config.json must be JSON: "),
        (None, [], "net.safetensors has no config.json"),
    ],
)
def test_a_folder_that_cannot_be_made_is_refused_before_any_work(
    folder, monkeypatch, config, options, words
):
    pytest.importorskip("transformers")
    source = "net.safetensors" if config is None else "dense"
    if config is not None:
        Path("dense").mkdir()
        Path("dense", "config.json").write_text(config)
    monkeypatch.setattr(momos, "compress", None)
    done = invoke("compress", source, "out", "--for", "transformers", *options)
    assert done.exit_code == 1, done.output
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not Path("out").exists()


def test_a_folder_without_transformers_names_what_to_install(folder, monkeypatch):
    Path("dense").mkdir()
    Path("dense", "config.json").write_text("{}")
    for name in ("", ".folder"):
        name = f"momos.integrations.transformers{name}"
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "transformers", None)
    done = invoke("compress", "dense", "out", "--for", "transformers")
    assert done.exit_code == 1, done.output
    assert 'pip install "mosaic-of-motifs[transformers]"' in done.stderr
    assert done.stderr.count("\n") == 1
