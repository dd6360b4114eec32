"""A file that is not what docs/format.md says is refused, whatever is wrong with it."""

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from files.hostile import hostile
from files.make import GOLDEN, GOLDEN_2, Everything
from files.wrong_2 import hostile_2
from files.wrong_contents import scaled_apart
from mutants import LOADED, REFUSED, Draft, mutant, outcome, raw

import momos

FILES = {
    f"{folder.name}/{path.stem}": path.read_bytes()
    for folder in (GOLDEN, GOLDEN_2)
    for path in sorted(folder.glob("*.momos"))
}
HOSTILE = hostile()
HOSTILE_2 = hostile_2(HOSTILE)
SMALL = FILES["v1/half"]
NUM_MUTANTS = 2000  # bench/fuzz.py tries 100 000


def refused(file: bytes, path: Path) -> list[str]:
    """What is missing of a refusal: nothing, if both ways to read it name the file."""
    path.write_bytes(file)
    problems = []
    for read in (momos.load, verified):
        try:
            read(path)
            problems.append(f"{read.__name__} accepts it")
        except momos.FormatError as error:
            if error.path != str(path) or not str(error).startswith(f"{path}: "):
                problems.append(f"{read.__name__} does not name it: {error}")
        except Exception as error:  # which one is what the test tells
            problems.append(f"{read.__name__}: {type(error).__name__}: {error}")
    return problems


def verified(path: Path) -> None:
    with momos.MosaicFile(path) as file:
        file.verify()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "network.momos"


# Files made to be wrong


def test_hostile_files_are_many():
    assert len(HOSTILE) > 800
    assert len(set(HOSTILE.values())) > 800


@pytest.mark.parametrize("name", FILES)
def test_a_file_taken_apart_and_put_together_is_the_same(name, path):
    draft = Draft.of(FILES[name])
    assert outcome(draft.file(), path) == LOADED
    assert Draft.of(draft.file()) == draft


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(name, path):
    start = time.process_time()
    assert refused(HOSTILE[name], path) == []
    assert time.process_time() - start < 1


@pytest.mark.parametrize("name", HOSTILE)
def test_the_second_reader_refuses_what_the_first_does(name, path):
    assert outcome(HOSTILE[name], path) == REFUSED


def test_hostile_files_of_version_2_are_many():
    assert len(HOSTILE_2) > 300
    assert len(set(HOSTILE_2.values())) > 300


@pytest.mark.parametrize("part", range(4))
def test_hostile_files_of_version_2_are_refused(part, path):
    wrong = {}
    for name in list(HOSTILE_2)[part::4]:
        problems = refused(HOSTILE_2[name], path)
        if outcome(HOSTILE_2[name], path) != REFUSED:
            problems.append("the second reader accepts it")
        if problems:
            wrong[name] = problems
    assert wrong == {}


@pytest.mark.parametrize(
    "config", [{"block_size": 0}, {"selection": "learned"}, {}, {"include": 3, "new": None}]
)
def test_a_config_that_this_version_does_not_know_is_no_harm(config, path):
    draft = Draft.of(FILES["v1/everything"])
    draft.manifest["config"] = config
    assert outcome(draft.file(), path) == LOADED
    assert momos.load(path).mosaic.config is None


def test_a_scale_for_each_channel_is_none_too_many(path):
    """What `scaled_apart` breaks is right where the count is."""
    path.write_bytes(scaled_apart(30))
    tensors = momos.load(path).tensors()
    assert {n: raw(t) for n, t in tensors.items()} == {
        n: raw(t) for n, t in momos.load(GOLDEN / "everything.momos").tensors().items()
    }
    assert outcome(path.read_bytes(), path) == LOADED


def test_a_model_stays_as_it_was_if_the_file_is_refused(path):
    model = Everything()
    for tensor in (*model.parameters(), *model.buffers()):
        with torch.no_grad():
            tensor.view(-1).view(torch.uint8)[:] = 1
    before = {name: raw(tensor) for name, tensor in model.state_dict().items()}
    for name, file in HOSTILE.items():
        path.write_bytes(file)
        with pytest.raises(ValueError, match=r"network\.momos"):
            momos.load_(model, path)
        after = {name: raw(tensor) for name, tensor in model.state_dict().items()}
        assert after == before, name
        assert "_momos_mosaic" not in model.__dict__


def test_no_hostile_file_takes_much_memory(tmp_path):
    for number, file in enumerate(HOSTILE.values()):
        (tmp_path / f"{number}.momos").write_bytes(file)
    script = (
        "import resource, sys, momos, test_files_hostile as own\n"
        "from pathlib import Path\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "limit = own.address_space() + (1 << 30)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "for path in Path(sys.argv[1]).glob('*.momos'):\n"
        "    for read in (momos.load, own.verified):\n"
        "        try:\n"
        "            read(path)\n"
        "        except momos.FormatError:\n"
        "            pass\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print((after - before) >> 10)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300  # MiB, much of it what Python and torch load late


def address_space() -> int:
    """Bytes of addresses that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


# Damage


def test_every_flipped_bit_is_found(path):
    for bit in range(8 * len(SMALL)):
        data = bytearray(SMALL)
        data[bit // 8] ^= 1 << bit % 8
        assert refused(bytes(data), path) == [], f"bit {bit % 8} of byte {bit // 8}"


@pytest.mark.parametrize("name", FILES)
def test_every_length_that_is_too_short_is_found(name, path):
    for length in range(len(FILES[name])):
        assert refused(FILES[name][:length], path) == [], length


def test_a_directory_is_not_a_file(tmp_path):
    with pytest.raises(IsADirectoryError):
        momos.load(tmp_path)


# Mutants


def test_a_mutant_is_refused_or_is_what_it_says(path):
    files, found = list(FILES.values()), {}
    for seed in range(NUM_MUTANTS):
        result = outcome(mutant(files, seed), path)
        found.setdefault(result, []).append(seed)
    faults = {
        what: seeds[:3] for what, seeds in found.items() if what not in (LOADED, REFUSED)
    }
    assert faults == {}
    assert len(found[LOADED]) > NUM_MUTANTS // 50
    assert len(found[REFUSED]) > NUM_MUTANTS // 2
