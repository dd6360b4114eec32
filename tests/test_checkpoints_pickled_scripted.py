"""TorchScript archives: tensors by the names of state_dict, and no code that runs."""

import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import momos
from momos.checkpoints.opening import open_source

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


class Sub(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)
        self.sizes, self.constants = [1, 2], {"a": torch.ones(2)}

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x)) + self.sizes[0] + self.constants["a"].sum()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Sub()
        self.tied = self.first
        self.layers = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        self.memory = nn.LSTM(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.memory(self.layers(self.tied(self.first(x))))[0]


def scripted(path: Path) -> dict[str, Tensor]:
    torch.manual_seed(0)
    module = torch.jit.script(Net())
    torch.jit.save(module, path)
    return module.state_dict()


def test_the_tensors_are_those_of_its_state_dict(tmp_path):
    expected = scripted(tmp_path / "net.pt")
    source = open_source(tmp_path / "net.pt")
    found = {n: t.read(0, t.num_weights).view(t.shape) for n, t in source.tensors.items()}
    found |= {name: found[first] for name, first in source.aliases.items()}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], one) for name, one in expected.items())
    assert source.aliases["tied.linear.weight"] == "first.linear.weight"
    names = [one[1] for one in torch.serialization.get_safe_globals() if type(one) is tuple]
    assert not any(name.startswith("__torch__") for name in names)


def test_it_is_compressed_and_measured_like_any_checkpoint(tmp_path):
    expected = scripted(tmp_path / "net.pt")
    config = momos.MosaicConfig(block_size=2, num_motifs=4)
    momos.compress(tmp_path / "net.pt", tmp_path / "net.momos", config)
    assert momos.load(tmp_path / "net.momos").state_dict().keys() == expected.keys()
    assert momos.measure(tmp_path / "net.pt", measures="signs", controls=0)["signs"].value


def test_a_frozen_one_says_where_its_weights_are(tmp_path):
    module = torch.jit.freeze(torch.jit.trace(nn.Linear(3, 2).eval(), torch.zeros(1, 3)))
    torch.jit.save(module, tmp_path / "net.pt")
    with pytest.raises(
        momos.FormatError, match="a frozen TorchScript module keeps its weig"
    ):
        open_source(tmp_path / "net.pt")


def archive(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in {
            "data.pkl": content,
            "constants.pkl": b"",
            "version": b"3",
        }.items():
            file.writestr(f"net/{name}", data)
    return path


class Evil:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("touched"),)


def test_no_code_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = io.BytesIO()
    pickle.Pickler(content, protocol=2).dump({"w": Evil()})
    with pytest.raises(momos.FormatError):
        open_source(archive(tmp_path / "x.pt", content.getvalue()))
    assert not Path("touched").exists()
    for name in (b"__torch__\nNet", b"__torch__.os\nsystem"):
        own = b"\x80\x02c" + name + b"\n(X\x04\0\0\0trueR."  # a class is called with text
        with pytest.raises(momos.FormatError):
            open_source(archive(tmp_path / "x.pt", own))


MODULE = b"c__torch__\nNet\n)\x81"


@pytest.mark.parametrize(
    "content",
    [
        MODULE + b"q\0}X\1\0\0\0ah\0sb.",  # a module that holds itself
        b"".join(MODULE + b"}X\1\0\0\0a" for _ in range(200)) + MODULE + b"sb" * 200 + b".",
    ],
)
def test_modules_that_nest_without_end_are_refused(content, tmp_path):
    with pytest.raises(momos.FormatError, match="at most 100 deep"):
        open_source(archive(tmp_path / "x.pt", b"\x80\x02" + content))


def test_modules_that_are_shared_at_every_depth_are_refused(tmp_path):
    """Each of 40 modules holds the next one twice, which makes 2 to the power of 40 names."""
    content = b"\x80\x02" + MODULE + b"}b"
    for at in range(40):
        place = bytes([at])
        content += (
            b"q"
            + place
            + MODULE
            + b"}(X\1\0\0\0ah"
            + place
            + b"X\1\0\0\0bh"
            + place
            + b"ub"
        )
    with pytest.raises(momos.FormatError, match="at most 262,144 modules and tensors"):
        open_source(archive(tmp_path / "x.pt", content + b"."))
