"""From a checkpoint to a small file and back, from the shell."""

import json
import os
from pathlib import Path

import pytest
import torch
from commands import invoke
from safetensors.torch import load_file, save_file
from torch import nn

import momos


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(40, 30))
    save_file(model.state_dict(), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


@pytest.fixture
def mosaic(checkpoint: Path) -> Path:
    path = checkpoint.with_name("net.momos")
    config = momos.MosaicConfig(block_size=4, num_motifs=32, selection="kmeans")
    momos.compress(checkpoint, path, config)
    return path


def test_a_checkpoint_goes_there_and_back(checkpoint, tmp_path):
    small, back = tmp_path / "net.momos", tmp_path / "back.safetensors"
    done = invoke("compress", checkpoint, small, "--block-size", "4", "--num-motifs", "32")
    assert done.exit_code == 0, done.output
    assert invoke("verify", small).exit_code == 0
    assert invoke("expand", small, back).exit_code == 0
    before, after = load_file(checkpoint), load_file(back)
    assert before.keys() == after.keys()
    saved = momos.load(small).state_dict()
    assert all(torch.equal(after[name], saved[name]) for name in after)


def test_compressing_says_what_became_of_every_tensor(checkpoint, tmp_path):
    done = invoke("compress", checkpoint, tmp_path / "x.momos", "--exclude", "*bias")
    lines = done.output.splitlines()
    for name in load_file(checkpoint):
        assert any(line.startswith(name) for line in lines), name

    def line(start: str) -> str:
        return next(line for line in lines if line.startswith(start))

    assert "not chosen" in line("0.bias")
    assert "running statistics" in line("1.running_mean")
    assert "not of a floating dtype" in line("1.num_batches_tracked")
    assert line("0.weight").split()[:3] == ["0.weight", "8×3×3×3", "blocks"]
    assert "times smaller" in lines[-1]


def test_options_reach_the_mosaic(checkpoint, tmp_path):
    done = invoke(
        *("compress", checkpoint, tmp_path / "x.momos", "--block-size", "3"),
        *("--capacity", "0.1", "--selection", "distinct", "--no-zero-motif", "--seed", "5"),
        *("--include", "2.*", "--include", "0.*", "--exclude", "*.bias"),
        *("--scales", "channel", "--rate-weight", "0.25", "--bits", "5", "--min-ndim", "2"),
        *("--dense-dtype", "bfloat16", "--json"),
    )
    assert done.exit_code == 0, done.output
    found = momos.load(tmp_path / "x.momos").mosaic
    assert found.config == momos.MosaicConfig(
        block_size=3,
        capacity=0.1,
        selection="distinct",
        zero_motif=False,
        seed=5,
        include=("2.*", "0.*"),
        exclude=("*.bias",),
        min_ndim=2,
        scales="channel",
        rate_weight=0.25,
        bits=5,
        dense_dtype="bfloat16",
    )
    assert found.motifs.dtype == torch.int8
    assert list(map(len, found.scales)) == [8, 30]
    assert json.loads(done.stdout)["config"]["capacity"] == 0.1


def test_what_a_torch_file_held_beside_tensors_is_told(tmp_path):
    torch.save({"model": nn.Linear(9, 9).state_dict(), "epoch": 3}, tmp_path / "x.pt")
    done = invoke("compress", tmp_path / "x.pt", tmp_path / "x.momos")
    assert done.exit_code == 0
    assert "left out: epoch (int)" in done.output


@pytest.mark.filterwarnings("default:.*seems to be quantized")
def test_a_quantized_checkpoint_is_warned_of_on_standard_error(tmp_path):
    state = {"w": torch.ones(8, 8).to(torch.float8_e4m3fn), "scale": torch.rand(2, 4)}
    save_file(state, tmp_path / "x.safetensors")
    done = invoke("compress", tmp_path / "x.safetensors", tmp_path / "x.momos")
    assert done.exit_code == 0
    assert done.stderr.startswith("momos: warning: ")
    assert "seems to be quantized" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_inspect_shows_every_part_and_length(mosaic):
    done = invoke("inspect", mosaic)
    assert done.exit_code == 0
    words = ("header", "manifest", "motifs", "usage table", "mosaic", "dense tensors")
    words += ("bound", "entropy", "the whole file", "distortion", "blocks", "times smaller")
    for word in words:
        assert word in done.output, word


def test_inspect_as_json_adds_up(mosaic):
    done = invoke("inspect", mosaic, "--json")
    found = json.loads(done.stdout)
    assert found["num_bytes"] == mosaic.stat().st_size == sum(found["sections"].values())
    assert found["lengths"]["file"] == 8 * found["num_bytes"]
    assert {tensor["name"] for tensor in found["tensors"]} >= {"0.weight", "1.running_var"}
    blocks = [tensor for tensor in found["tensors"] if tensor["stored"] == "blocks"]
    assert sum(tensor["length"] for tensor in blocks) == 8 * found["sections"]["mosaic"]


def test_verify_finds_a_flipped_bit(mosaic):
    data = bytearray(mosaic.read_bytes())
    data[-1000] ^= 16
    mosaic.write_bytes(data)
    done = invoke("verify", mosaic)
    assert done.exit_code == 1
    assert str(mosaic) in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("command", ["inspect", "verify", "expand"])
def test_what_is_no_momos_file_is_told_in_one_line(command, checkpoint, tmp_path):
    target = [tmp_path / "x.safetensors"] if command == "expand" else []
    done = invoke(command, checkpoint, *target)
    assert done.exit_code == 1
    expected = "but this is a safetensors file (momos compress makes a .momos file of it)"
    assert done.output.rstrip().endswith(expected)
    assert len(done.output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["verify", "absent.momos"], 3, "absent.momos: No such file or directory"),
        (["compress", "absent.pt", "x.momos"], 3, "absent.pt: No such file or directory"),
        (["compress", "net.safetensors", "no/x.momos"], 3, "x.momos: No such file"),
        (["compress", "net.safetensors", "."], 3, "must be written to a file name"),
        (["compress", "net.safetensors", "net.safetensors"], 1, "written beside"),
        (["compress", "net.safetensors", "x.momos", "--include", "q"], 1, "got none for"),
        (["compress", "net.safetensors", "x.momos", "--capacity", "2"], 1, "at most 1"),
        (
            ["compress", "net.safetensors", "x.momos", "--capacity", "0.1", "--bits", "9"],
            1,
            "2 to 8, 16 or 32",
        ),
        (
            ["compress", "net.safetensors", "x.momos", "--bits", "8"],
            1,
            "--bits must be given with --num-motifs or --capacity, got it without",
        ),
        (
            ["compress", "net.safetensors", "x.momos", "--step", "1", "--capacity", "0.1"],
            1,
            "--step must be given without --num-motifs or --capacity, got it with",
        ),
        (
            ["compress", "net.safetensors", "x.momos", "--step", "0"],
            1,
            "above 0 and finite",
        ),
        (
            ["compress", "net.safetensors", "x.momos", "--target-size", "big"],
            2,
            "like 100kB",
        ),
        (
            ["compress", "net.safetensors", "x.momos", "--target-size", "9"],
            1,
            "must be at least",
        ),
        (
            [
                "compress",
                "net.safetensors",
                "x.momos",
                "--target-factor",
                "2",
                "--capacity",
                "1",
            ],
            1,
            "a target must be given with a LatticeConfig",
        ),
        (["compress", "net.safetensors", "x.momos", "--scales", "all"], 2, "scales"),
        (["compress", "net.txt", "x.momos"], 3, "net.txt: No such file"),
        (["compress", "net.safetensors", "x.momos", "--block-size", "0"], 2, "block-size"),
        (["compress", "net.safetensors"], 2, "OUTPUT.momos"),
        (["inspect"], 2, "FILE.momos"),
        (["inspect", "pipe"], 3, "a file must be an ordinary one, but pipe is a pipe"),
        (["compress", "pipe.pt", "x.momos"], 3, "but pipe.pt is a pipe"),
    ],
)
def test_every_failure_has_its_code_and_its_reason(
    checkpoint, monkeypatch, arguments, code, message
):
    monkeypatch.chdir(checkpoint.parent)
    os.mkfifo("pipe")
    Path("pipe.pt").symlink_to("pipe")
    done = invoke(*arguments)
    assert done.exit_code == code, done.output
    assert message in done.output
    assert not Path("x.momos").exists()


def test_capacity_and_num_motifs_exclude_each_other(checkpoint, tmp_path):
    done = invoke(
        *("compress", checkpoint, tmp_path / "x.momos"),
        *("--capacity", "0.1", "--num-motifs", "3"),
    )
    assert done.exit_code == 1
    assert "one of capacity and num_motifs must be given, got both" in done.output


def test_a_torch_file_comes_back(mosaic):
    assert invoke("expand", mosaic, mosaic.with_name("back.pt")).exit_code == 0
    found, state = torch.load(mosaic.with_name("back.pt")), momos.load(mosaic).state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    done = invoke("expand", mosaic, mosaic.with_name("back.ckpt"))
    assert done.exit_code == 1
    assert "must be named .safetensors, .pt, .pth or .bin" in done.output


def test_a_key_chooses_one_of_several_state_dicts(checkpoint, tmp_path):
    nets = {"generator": nn.Linear(9, 9), "critic": nn.Linear(7, 7)}
    torch.save({name: net.state_dict() for name, net in nets.items()}, tmp_path / "gan.pt")
    arguments = ("compress", tmp_path / "gan.pt", tmp_path / "x.momos")
    done = invoke(*arguments)
    assert done.exit_code == 1
    assert "name the one you mean, as --key generator" in done.output
    assert invoke(*arguments, "--key", "critic").exit_code == 0
    assert momos.load(tmp_path / "x.momos").state_dict()["weight"].shape == (7, 7)
    options = ("--measures", "signs", "--shuffles", "0")
    measured = ("measure", tmp_path / "gan.pt", *options, "--key", "critic", "--json")
    done = invoke(*measured, "--init", tmp_path / "gan.pt", "--init-key", "critic")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout).values()
    assert found["rows"][0]["num_weights"] == 56
    assert found["rows"][0]["ratio"] == 1
    done = invoke("compress", checkpoint, tmp_path / "x.momos", "--key", "ema")
    assert done.exit_code == 1
    assert "key must be given for what torch.save writes only, got 'ema'" in done.output


def test_expanding_is_bounded_as_asked(mosaic):
    back = mosaic.with_name("back.safetensors")
    done = invoke("expand", mosaic, back, "--most-bytes", "5000")
    assert done.exit_code == 1
    assert "must have at most 5,000 bytes" in done.output
    assert invoke("expand", mosaic, back, "--most-bytes", "9999").exit_code == 0


@pytest.mark.parametrize("target", ["index", "one", "two", "link"])
def test_no_file_that_is_read_is_written_over(target, checkpoint, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    names = {"index": "model.safetensors.index.json", "one": "one.safetensors"}
    names |= {"two": "two.safetensors", "link": "link.momos"}
    places = {}
    for number, name in enumerate(load_file(checkpoint)):
        places[name] = names["one" if number else "two"]
    for shard in ("one", "two"):
        own = {n: t for n, t in load_file(checkpoint).items() if places[n] == names[shard]}
        save_file(own, folder / names[shard])
    (folder / names["index"]).write_text(json.dumps({"weight_map": places}))
    (folder / names["link"]).hardlink_to(folder / names["two"])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = invoke("compress", folder, folder / names[target])
    assert done.exit_code == 1
    assert "must be written beside the files that are read" in done.output
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_interrupt_leaves_nothing_and_exits_with_130(checkpoint, tmp_path, monkeypatch):
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("momos.checkpoints.banks.searcher", interrupt)
    done = invoke("compress", checkpoint, tmp_path / "x.momos", "--num-motifs", "9")
    assert done.exit_code == 130
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_names_of_tensors_never_steer_the_terminal(tmp_path):
    path, small = tmp_path / "net.safetensors", tmp_path / "x.momos"
    save_file({"a\x1b[2J\x07\u202e": torch.randn(40, 30)}, path)
    done = invoke("compress", path, small, "--num-motifs", "32")
    for shown in (done, invoke("inspect", small)):
        assert shown.exit_code == 0, shown.output
        assert r"a\x1b[2J\x07" in shown.output
        assert not {"\x1b", "\x07", "\u202e"} & set(shown.output)
