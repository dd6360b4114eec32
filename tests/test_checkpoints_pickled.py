"""Torch files: values are read by position, whatever way their tensors lie in storages."""

import argparse
import pickle
import random
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import momos
from momos.checkpoints import pickled
from momos.checkpoints.opening import open_source

CONFIG = momos.MosaicConfig(block_size=2, num_motifs=4)


def read_all(path: Path, *, step: int = 7) -> dict[str, Tensor]:
    """All tensors of a checkpoint, in pieces of a few values."""
    source, found = open_source(path), {}
    for name, tensor in source.tensors.items():
        pieces = [
            tensor.read(first, min(first + step, tensor.num_weights))
            for first in range(0, tensor.num_weights, step)
        ]
        assert all(piece.is_contiguous() and piece.dim() == 1 for piece in pieces)
        flat = torch.cat([torch.empty(0, dtype=tensor.dtype), *pieces])
        found[name] = flat.view(tensor.shape)
    return found | {name: found[first] for name, first in source.aliases.items()}


def rezipped(path: Path, **changed: bytes) -> Path:
    """The archive at `path` with deflated records, of which some are others."""
    target = path.with_name(f"deflated-{path.name}")
    with (
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, changed.get(name.partition("/")[2], old.read(name)))
    return target


BASE = torch.arange(240.0)
STRIDED = {
    "transposed": BASE.view(12, 20).T,
    "permuted": BASE.view(2, 3, 4, 10).permute(3, 1, 0, 2),
    "channels last": BASE.view(2, 3, 8, 5).contiguous(memory_format=torch.channels_last),
    "a slice of rows": BASE.view(12, 20)[3:9],
    "a slice of columns": BASE.view(12, 20)[:, 5:9],
    "every third": BASE[1::3],
    "one long row": BASE.view(1, 12, 20).transpose(1, 2),
    "expanded": torch.arange(3.0)[:, None].expand(3, 5),
    "one value": torch.ones(1).expand(4, 6),
    "overlapping": BASE.unfold(0, 6, 2),
    "a single number": torch.tensor(3.5),
    "a parameter": nn.Parameter(torch.randn(3, 4).T),
    "empty": torch.empty(3, 0),
    "conjugated": torch.randn(4, 3, dtype=torch.complex64).T.conj(),
    "negated": torch.randn(4, dtype=torch.complex64).conj().imag,
    "whole numbers": torch.arange(12, dtype=torch.int16).view(3, 4).T,
    "float8": torch.randn(4, 6).to(torch.float8_e4m3fn),
    "flags": torch.arange(12).view(3, 4).T % 2 == 0,
}


@pytest.mark.parametrize("step", [3, 7, 64, 1000])
@pytest.mark.parametrize("zipped", [True, False])
def test_every_way_to_lie_in_memory_is_read(tmp_path, zipped, step):
    tensors = {n: t for n, t in STRIDED.items() if zipped or n != "float8"}
    torch.save(tensors, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    found = read_all(tmp_path / "x.pt", step=step)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor.detach()), name


def test_deflated_records_are_inflated(tmp_path):
    torch.save(STRIDED, tmp_path / "x.pt")
    path = rezipped(tmp_path / "x.pt")
    with zipfile.ZipFile(path) as archive:
        assert any(info.compress_size < info.file_size for info in archive.infolist())
    found = read_all(path)
    assert all(torch.equal(found[name], one.detach()) for name, one in STRIDED.items())


def test_a_deflated_checkpoint_becomes_the_same_mosaic(tmp_path):
    torch.save({"w": torch.randn(20, 30)}, tmp_path / "x.pt")
    momos.compress(tmp_path / "x.pt", tmp_path / "a.momos", CONFIG)
    momos.compress(rezipped(tmp_path / "x.pt"), tmp_path / "b.momos", CONFIG)
    left, right = (momos.load(tmp_path / name) for name in ("a.momos", "b.momos"))
    assert torch.equal(left.state_dict()["w"], right.state_dict()["w"])


def test_values_of_another_byte_order_are_turned(tmp_path):
    values = {"w": torch.randn(5, 3).T, "c": torch.randn(4, dtype=torch.complex64)}
    torch.save(values, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        records = {n.partition("/")[2]: archive.read(n) for n in archive.namelist()}
    turned = {
        name: torch.frombuffer(bytearray(data), dtype=torch.uint8)
        .view(-1, 4)
        .flip(1)
        .numpy()
        .tobytes()
        for name, data in records.items()
        if name.startswith("data/")
    }
    found = read_all(rezipped(tmp_path / "x.pt", byteorder=b"big", **turned))
    assert all(torch.equal(found[name], one) for name, one in values.items())


@pytest.mark.parametrize("name", ["data/0", "data/1"])
def test_a_record_shorter_than_its_storage_is_refused(tmp_path, name):
    torch.save({"a": torch.ones(40), "b": torch.ones(30)}, tmp_path / "x.pt")
    path = rezipped(tmp_path / "x.pt", **{name: bytes(8)})
    with pytest.raises(
        momos.FormatError, match=f"record '{name}': must hold the 1.0 bytes"
    ):
        open_source(path)


def test_a_missing_record_is_refused(tmp_path):
    torch.save({"a": torch.ones(40)}, tmp_path / "x.pt")
    with (
        zipfile.ZipFile(tmp_path / "x.pt") as old,
        zipfile.ZipFile(tmp_path / "y.pt", "w") as new,
    ):
        new.writestr("x/data.pkl", old.read("x/data.pkl"))
    with pytest.raises(
        momos.FormatError, match="record 'data/0': must be there, but is not"
    ):
        open_source(tmp_path / "y.pt")


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    torch.save({"a": torch.ones(77)}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        content = archive.read("x/data.pkl")
    changed = content.replace(b"QK\x00K\x4d\x85", b"QK\x09K\x4d\x85")  # its offset
    assert changed != content
    path = rezipped(tmp_path / "x.pt", **{"data.pkl": changed})
    with pytest.raises(momos.FormatError, match="'a': must have 344 bytes, got 308"):
        open_source(path)


@pytest.mark.parametrize("field", ["header_offset", "compress_size"])
def test_a_record_that_is_elsewhere_is_refused(tmp_path, field):
    torch.save({"w": torch.randn(300)}, tmp_path / "x.pt")
    data = bytearray((tmp_path / "x.pt").read_bytes())
    for at in range(len(data)):  # the entries of the archive's directory
        if data[at : at + 4] == b"PK\1\2":
            start = at + {"header_offset": 42, "compress_size": 20}[field]
            data[start : start + 4] = b"\xf0\xff\xff\x7f"
    (tmp_path / "x.pt").write_bytes(data)
    with pytest.raises(momos.FormatError, match="must"):
        open_source(tmp_path / "x.pt")


def test_a_name_that_is_no_text_is_refused(tmp_path):
    torch.save({"\udc80": torch.ones(3)}, tmp_path / "x.pt")
    with pytest.raises(momos.FormatError, match="must have a name of Unicode text"):
        open_source(tmp_path / "x.pt")


def test_a_damaged_deflated_record_is_refused(tmp_path):
    torch.save({"w": torch.randn(300)}, tmp_path / "x.pt")
    path = rezipped(tmp_path / "x.pt")
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("x/data/0")
    data = bytearray(path.read_bytes())
    data[info.header_offset + 200] ^= 255
    path.write_bytes(data)
    tensor = open_source(path).tensors["w"]
    with pytest.raises(momos.FormatError, match="record 'data/0': must be whole"):
        tensor.read(0, 300)


@pytest.mark.parametrize("lie", [Tensor.contiguous, Tensor.t])
def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path, lie):
    torch.save({"w": lie(torch.randn(300, 300))}, tmp_path / "x.pt")
    tensor = open_source(tmp_path / "x.pt").tensors["w"]
    with open(tmp_path / "x.pt", "r+b") as file:
        file.truncate(20_000)
    with pytest.raises(momos.FormatError, match="the file ends early"):
        tensor.read(80_000, 90_000)


def test_pieces_of_a_transposed_tensor_cost_one_reading(tmp_path, monkeypatch):
    torch.save({"w": torch.randn(40, 50).T, "v": torch.randn(30, 9).T}, tmp_path / "x.pt")
    read, asked = pickled.Records.read, []

    def counting(self: pickled.Records, name: str, first: int, last: int) -> Tensor:
        asked.append(last - first)
        return read(self, name, first, last)

    source = open_source(tmp_path / "x.pt")
    monkeypatch.setattr(pickled.Records, "read", counting)
    for tensor in source.tensors.values():
        for first in range(0, tensor.num_weights, 10):
            tensor.read(first, first + 10)
    assert asked == [4 * 2000, 4 * 270]


ODD: dict[str, Callable[[], Tensor]] = {
    "quantized (qint8)": lambda: torch.quantize_per_tensor(BASE, 0.1, 0, torch.qint8),
    "sparse (sparse_coo)": lambda: torch.eye(4).to_sparse(),
    "sparse (sparse_csr)": lambda: torch.eye(4).to_sparse_csr(),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "without values": lambda: torch.ones(3, device="meta"),
    "1 stored values stand for 1,000,000,000,000": lambda: torch.ones(1).expand(10**12),
    "of dtype complex32": lambda: torch.zeros(3, dtype=torch.int32).view(torch.complex32),
}


@pytest.mark.filterwarnings("ignore")  # torch's, about tensors that it deprecates
@pytest.mark.parametrize("what", ODD)
def test_a_tensor_without_plain_values_is_named_and_can_be_excluded(tmp_path, what):
    path, out = tmp_path / "x.pt", tmp_path / "x.momos"
    torch.save({"w": torch.randn(8, 8), "odd": ODD[what]()}, path)
    with pytest.raises(
        ValueError, match=r"tensor 'odd' .*, or exclude it to leave it out"
    ) as e:
        momos.compress(path, out, CONFIG)
    assert what in str(e.value)
    assert not out.exists()
    config = momos.MosaicConfig(block_size=2, num_motifs=4, exclude=("odd",))
    report = momos.compress(path, out, config)
    assert what in report.left_out["odd"]
    assert list(momos.load(out).state_dict()) == ["w"]
    assert "odd" in momos.measure(path, measures="signs").left_out


def test_a_pickle_that_needs_a_name_says_which_and_what_to_do(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"state_dict": {"w": torch.ones(3)}, "args": argparse.Namespace(n=1)}, path)
    with pytest.raises(momos.FormatError) as error:
        open_source(path)
    assert str(error.value) == (
        f"{path}: pickle: must hold tensors and plain values only, but needs "
        "argparse.Namespace, and no code is run: save the tensors alone, as "
        "torch.save(model.state_dict(), 'state.pt'), or call "
        "torch.serialization.add_safe_globals([argparse.Namespace]) first if you trust what "
        "these names run"
    )
    with torch.serialization.safe_globals([argparse.Namespace]):
        assert open_source(path).left_out == {"args": "Namespace"}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_a_whole_module_is_refused_with_what_to_save_instead(tmp_path, zipped):
    path = tmp_path / "x.pt"
    torch.save(nn.Linear(2, 2), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        momos.FormatError, match=r"got a whole module .*model\.state_dict\(\)"
    ):
        open_source(path)


def test_a_later_pickle_protocol_is_named(tmp_path):
    torch.save({"w": torch.ones(3)}, tmp_path / "x.pt", pickle_protocol=4)
    with pytest.raises(momos.FormatError, match="must be of pickle protocol 2"):
        open_source(tmp_path / "x.pt")


def test_a_plain_pickle_is_named(tmp_path):
    (tmp_path / "x.pt").write_bytes(pickle.dumps({"w": [1.0]}))
    with pytest.raises(momos.FormatError, match="got a Python pickle"):
        open_source(tmp_path / "x.pt")


STATE = nn.Linear(3, 2).state_dict()
OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(2, 3)}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize(
    ("value", "left_out"),
    [
        (STATE | {"num_updates": 5}, {"num_updates": "int"}),
        (STATE | {"0._extra_state": None}, {"0._extra_state": "NoneType"}),
        (STATE | {"0._extra_state": {"a": torch.ones(2)}}, {"0._extra_state": "dict"}),
        ({"params_ema": STATE}, {}),
        ({"ema": STATE, "epoch": torch.tensor(3)}, {"epoch": "Tensor"}),
        ({"model": {"state_dict": STATE, "args": {"n": 1}}}, {"model.args": "dict"}),
        ({"model_state": STATE, "optimizer_state": OPTIMIZER}, {"optimizer_state": "dict"}),
        ({"model": STATE, "opt": OPTIMIZER}, {"opt": "dict"}),
        ({"model": STATE, "ema": STATE}, {"ema": "dict of 2 tensors"}),
        (
            {"state_dict": STATE, "callbacks": {"best": torch.ones(2)}},
            {"callbacks": "dict"},
        ),
    ],
)
def test_the_state_dict_is_found_and_the_rest_left_out(tmp_path, value, left_out):
    torch.save(value, tmp_path / "x.pt")
    source = open_source(tmp_path / "x.pt")
    assert list(source.tensors) == ["weight", "bias"]
    found = {n: k.replace("OrderedDict", "dict") for n, k in source.left_out.items()}
    assert found == left_out


@pytest.mark.parametrize(
    "value",
    [
        OPTIMIZER,
        {"optimizer": OPTIMIZER},
        {"optim": {"w": torch.ones(3)}},
        {"state": {"w": {"exp_avg": torch.ones(3)}}},
        {"state.w.exp_avg": torch.ones(3), "state.w.step": torch.ones(())},
    ],
)
def test_an_optimizer_is_never_taken_for_weights(tmp_path, value):
    torch.save(value, tmp_path / "x.pt")
    with pytest.raises(momos.FormatError, match="must hold a state dict"):
        open_source(tmp_path / "x.pt")


def test_of_several_state_dicts_none_is_guessed(tmp_path):
    path = tmp_path / "gan.pt"
    torch.save({"generator": STATE, "critic": OrderedDict(w=torch.ones(2))}, path)
    with pytest.raises(momos.FormatError) as error:
        open_source(path)
    assert error.value.problem == (
        "must hold one state dict, got 'generator' (2 tensors), 'critic' (1 tensor): name the "
        "one you mean, as --key generator (in Python key='generator')"
    )
    source = open_source(path, key="critic")
    assert list(source.tensors) == ["w"]
    assert source.left_out == {"generator": "dict of 2 tensors"}
    with pytest.raises(
        momos.FormatError, match=r"at 'x', got 'generator' \(2 tensors\), 'cr"
    ):
        open_source(path, key="x")


def test_damaged_files_are_read_whole_or_refused(tmp_path):
    path, chance = tmp_path / "x.pt", random.Random(0)
    torch.save({"model": {"a": torch.randn(7, 5).T, "b": torch.ones(9)}, "n": 2}, path)
    plain, deflated = path.read_bytes(), rezipped(path).read_bytes()
    with zipfile.ZipFile(path) as archive:
        content = archive.read("x/data.pkl")
    refused = 0
    for number in range(150):
        data = bytearray([plain, deflated, content][number % 3])
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if number % 3 < 2:
            path.write_bytes(data)
        else:
            path.write_bytes(plain)
            path.write_bytes(rezipped(path, **{"data.pkl": bytes(data)}).read_bytes())
        try:
            for tensor in open_source(path).tensors.values():
                assert len(tensor.read(0, tensor.num_weights)) == tensor.num_weights
        except momos.FormatError:
            refused += 1
    assert 0 < refused < 150
