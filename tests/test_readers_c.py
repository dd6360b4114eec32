"""The reader in C reads what momos reads and refuses what momos refuses, under sanitizers."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from files.hostile import hostile
from files.make import GOLDEN, GOLDEN_2
from files.wrong_2 import hostile_2
from mutants import mutant, outcome, raw
from torch import nn

import momos
from momos import LatticeConfig
from momos.files.manifest import name_of

SOURCE = Path(__file__).parent.parent / "readers" / "c"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
FILES = sorted([*GOLDEN.glob("*.momos"), *GOLDEN_2.glob("*.momos")])
pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """The program dump.c, compiled with all warnings as errors."""
    program = tmp_path_factory.mktemp("reader") / "dump"
    flags = ["-std=c99", "-O1", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    sources = [SOURCE / "momos.c", SOURCE / "dump.c", "-lm", "-o", program]
    done = subprocess.run(
        [COMPILER, *flags, *SANITIZERS, *sources], capture_output=True, text=True
    )
    if "sanitize" in done.stderr or "asan" in done.stderr:
        done = subprocess.run([COMPILER, *flags, *sources], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    def read(paths, *arguments):
        text = "".join(f"{path}\n" for path in paths)
        done = subprocess.run(
            [program, *arguments], input=text, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.splitlines()

    return read


def tensors(lines):
    """Name, dtype, shape and bytes of every tensor that the program printed."""
    assert lines[0] == "ok"
    rows = [line.split("\t") for line in lines[1:-1]]
    return {
        json.loads(name): (dtype, tuple(json.loads(shape)), bytes.fromhex(data))
        for name, dtype, shape, data in rows
    }


def wanted(path):
    return {
        name: (name_of(tensor.dtype), tuple(tensor.shape), raw(tensor))
        for name, tensor in momos.load(path).tensors().items()
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_file_is_read_bit_for_bit(reader, path):
    assert tensors(reader([path], "-v")) == wanted(path)


@pytest.mark.parametrize(
    "config",
    [
        LatticeConfig(states=8, channel_axis="last", unit="channel"),
        LatticeConfig(states=256, step=0.02),
        LatticeConfig(states=1, step=2.0),
        LatticeConfig(block_size=3),
    ],
)
def test_a_compressed_network_is_read_bit_for_bit(reader, tmp_path, config):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(40, 30), nn.Embedding(20, 7))
    model[1].weight.data[0, 0] = 400.0  # one that escapes
    path = tmp_path / "net.momos"
    momos.compress(model, path, config)
    assert tensors(reader([path], "-v")) == wanted(path)


def test_hostile_files_are_refused(reader, tmp_path):
    files = hostile()
    files |= {f"version 2: {name}": file for name, file in hostile_2(files).items()}
    paths = []
    for number, file in enumerate(files.values()):
        paths.append(tmp_path / f"{number}.momos")
        paths[-1].write_bytes(file)
    results = reader(paths)
    assert len(results) == len(files) > 1100
    accepted = [name for name, result in zip(files, results, strict=True) if result == "ok"]
    assert accepted == []


def test_mutants_and_damage_are_judged_as_momos_does(reader, tmp_path):
    originals = [path.read_bytes() for path in FILES]
    files = [mutant(originals, seed) for seed in range(150)]
    small = (GOLDEN / "half.momos").read_bytes()
    files += [small[:length] for length in range(0, len(small), 31)]
    paths = []
    for number, file in enumerate(files):
        paths.append(tmp_path / f"{number}.momos")
        paths[-1].write_bytes(file)
    judged = [outcome(file, tmp_path / "other.momos") for file in files]
    results = reader(paths)
    differ = [
        (number, result, own)
        for number, (result, own) in enumerate(zip(results, judged, strict=True))
        if (result == "ok") != (own == "loaded") and not result.startswith("room")
    ]
    assert differ == []
    assert "loaded" in judged
