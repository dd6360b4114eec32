import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from momos.study.tasks import TASKS
from momos.study.tasks.architectures import Resized
from momos.study.tasks.archives import Images
from momos.study.tasks.task import Optimization, Task, image_task, seeded
from momos.study.tasks.zoo import NETWORKS, network, published, untrained

PLAN = Optimization(learning_rate=1e-3, batch_size=2, epochs=1)


def pictures(shape: tuple[int, ...] = (3, 32, 32), classes: int = 10) -> Task:
    labels = torch.arange(classes)
    data = Images(torch.zeros(classes, *shape), labels)
    return image_task(
        "pictures", data, data, seeded(nn.Flatten), PLAN, prepared=lambda pixels: pixels
    )


def count(built: nn.Module) -> int:
    return sum(weight.numel() for weight in built.parameters())


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("mlp:256-128", 3072 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10),
        ("mlp-paper", 986_634),
        ("resnet20", 269_722),
        ("resnet32", 464_154),  # 0.46, 0.66, 0.85 and 1.7 million: He et al. 2015, Table 6
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        ("resnet110", 1_727_962),
    ],
)
def test_the_weights_of_networks_for_images(name: str, weights: int) -> None:
    built = network(name, pictures(), 0)
    assert count(built) == weights
    assert built(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_vit_tiny_has_the_papers_weights() -> None:
    pytest.importorskip("transformers")
    task = pictures()
    with torch.device("meta"):
        assert count(network("vit-tiny", task, 0)) == 5_526_346
        assert count(network("vit-tiny:4", task, 0)) == 5_362_762


@pytest.mark.parametrize("name", ["vit-tiny:8", "vit-tiny:16"])
def test_a_vit_takes_small_images_as_they_are(name: str) -> None:
    pytest.importorskip("transformers")
    built = network(name, pictures((1, 32, 32), 5), 0)
    assert built(torch.zeros(2, 1, 32, 32)).shape == (2, 5)


def test_images_are_resized_for_a_network_of_one_size() -> None:
    seen = []

    class Seeing(nn.Module):
        def forward(self, images: torch.Tensor) -> SimpleNamespace:
            seen.append(images)
            return SimpleNamespace(logits=images.mean((2, 3)))

    images = torch.rand(2, 3, 8, 8)
    outputs = Resized(Seeing(), 16)(images)
    assert torch.allclose(outputs, images.mean((2, 3)), atol=0.1)
    assert seen[0].shape == (2, 3, 16, 16)
    assert torch.equal(seen[0][:, :, 0, 0], images[:, :, 0, 0])  # a corner
    between = images[:, :, 0, 0] * 0.75 + images[:, :, 0, 1] * 0.25
    assert torch.allclose(seen[0][:, :, 0, 1], between)
    for size in (8, None):
        Resized(Seeing(), size)(images)
        assert seen.pop() is images


@pytest.mark.parametrize(
    ("name", "shape"),
    [("mlp:8", (64,)), ("mlp-paper", (1, 28, 28)), ("resnet20", (1, 28, 28))],
)
def test_inputs_and_classes_are_the_tasks(name: str, shape: tuple[int, ...]) -> None:
    built = network(name, pictures(shape, 7), 0)
    assert built(torch.zeros(3, *shape)).shape == (3, 7)


def test_a_transformer_is_for_text() -> None:
    task = replace(pictures(), kind="text", inputs=(12,), outputs=9)
    built = network("transformer:depth=2,width=16", task, 0)
    assert built(torch.zeros(2, 12, dtype=torch.long)).shape == (2, 12, 9)
    assert count(built) < count(network("transformer:depth=3,width=16", task, 0))
    full = network("transformer", replace(task, inputs=(128,), outputs=65), 0)
    assert count(full) == 1_035_072  # the task's own


def test_the_grokking_network_is_for_pairs() -> None:
    task = TASKS["mod97"]()
    assert count(network("grokking:256", task, 0)) == 181_089
    assert task.evaluate(network("grokking:16", task, 0)) < 0.1


def test_without_a_name_it_is_the_tasks_own() -> None:
    task = TASKS["digits"]()
    own, same = network("", task, 3), task.network(3)
    assert torch.equal(own[1].weight, same[1].weight)


@pytest.mark.parametrize("name", ["mlp:16-8", "resnet20"])
def test_seeds_give_networks_and_leave_torchs_generator(name: str) -> None:
    before = torch.get_rng_state()
    one, two, other = (network(name, pictures(), seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for left, right in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(left, right)
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert not all(torch.equal(left, right) for left, right in pairs)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet21", r"one of mlp:256-128, .*, got 'resnet21' \(near: .*resnet20.*\)"),
        ("mpl:30", r"got 'mpl:30' \(near: mlp.*\)"),
        ("vittiny", r"got 'vittiny' \(near: vit-tiny\)"),
        ("zebra", "hf:NAME, got 'zebra'$"),
        ("resnet20:4", "got 'resnet20:4'"),
        ("mlp", "widths of mlp must be whole numbers of at least 1, got ''"),
        ("mlp:8-0", "widths of mlp must be whole numbers of at least 1, got '0'"),
        ("vit-tiny:x", "patch of vit-tiny must be whole numbers of at least 1, got 'x'"),
        ("grokking:8", "task must have inputs of the kind 'pair' for grokking:8, but"),
        ("transformer", r"'pictures' has \(3, 32, 32\) of the kind 'image'"),
    ],
)
def test_wrong_names_are_told(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(name, pictures(), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("dept=3", r"among depth, width, heads, got 'dept' \(near: depth\)"),
        ("depth=a", "depth of transformer must be whole numbers of at least 1, got 'a'"),
        ("width=30", "width of transformer must be a multiple of its heads, 4, got 30"),
    ],
)
def test_wrong_settings_of_a_transformer_are_told(settings: str, message: str) -> None:
    task = replace(pictures(), kind="text", inputs=(12,), outputs=9)
    with pytest.raises(ValueError, match=message):
        network(f"transformer:{settings}", task, 0)


@pytest.mark.parametrize("shape", [(64,), (3, 8, 6)])
def test_convolutions_need_square_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="inputs must be square images with channels, got"):
        network("resnet20", pictures(shape), 0)


def test_a_patch_divides_the_image() -> None:
    with pytest.raises(ValueError, match="patch must divide the size of images, 32, got 5"):
        network("vit-tiny:5", pictures(), 0)


def test_every_name_in_the_table_can_be_asked_for() -> None:
    for stem, family in NETWORKS.items():
        assert family.form.partition(":")[0].removesuffix("[") == stem


@pytest.mark.parametrize(
    ("name", "package"), [("timm:x", "timm"), ("hf:x", "transformers")]
)
def test_a_missing_package_is_named(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ImportError, match=f"{package} is needed, .*: pip install .*{package}"
    ):
        network(name, pictures(), 0)


def test_published_weights_of_a_resnet_are_for_cifar10(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(pictures(), name="resnet20-scratch")
    weights = {n: t + 1 for n, t in network("resnet20", task, 0).state_dict().items()}
    (tmp_path / "weights").mkdir()
    save_file(weights, tmp_path / "weights" / "resnet20_cifar10.safetensors")
    monkeypatch.setenv("MOMOS_DATA", str(tmp_path))
    found = published("resnet20", task, 1).state_dict()
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    start = untrained("resnet20", task, 0).state_dict()
    assert all(torch.equal(start[name] + 1, weights[name]) for name in weights)
    with pytest.raises(ValueError, match=r"task must be among .*, got 'pictures'"):
        published("resnet20", pictures(), 0)
    with pytest.raises(
        ValueError, match=r"published weights \(resnet20, resnet56, timm:NAME"
    ):
        published("resnet32", task, 0)
    with pytest.raises(FileNotFoundError, match=r"resnet56_cifar10\.safetensors"):
        published("resnet56", task, 0)


@pytest.mark.parametrize("made", [network, published])
@pytest.mark.parametrize("fixed", [True, False])
def test_networks_of_timm(
    fixed: bool,
    made: Callable[[str, Task, int], nn.Module],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = {}

    def create_model(name: str, **settings: object) -> nn.Module:
        asked.update(settings, name=name)
        built = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10))
        built.pretrained_cfg = {"input_size": (3, 24, 24), "fixed_input_size": fixed}
        return built

    fake = ModuleType("timm")
    fake.create_model = create_model  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "timm", fake)
    one, two = (made("timm:resnet18.a1_in1k", pictures(), 4) for _ in range(2))
    assert asked == {
        "name": "resnet18.a1_in1k",
        "pretrained": made is published,
        "num_classes": 10,
        "in_chans": 3,
    }
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(one(images), two(images))
    assert isinstance(one, Resized)
    assert one.size == (24 if fixed else None)


def test_networks_of_hugging_face_start_untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SimpleNamespace(image_size=24, num_labels=1000, num_channels=3)

    class Auto:
        @staticmethod
        def from_pretrained(name: str) -> SimpleNamespace:
            assert name == "facebook/deit-tiny"
            return config

        @staticmethod
        def from_config(config: SimpleNamespace) -> nn.Module:
            return nn.Sequential(
                nn.Flatten(), nn.Linear(config.num_channels * 24 * 24, config.num_labels)
            )

    fake = ModuleType("transformers")
    fake.AutoConfig = Auto  # pyright: ignore[reportAttributeAccessIssue]
    fake.AutoModelForImageClassification = Auto  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "transformers", fake)
    task = pictures((1, 32, 32), 6)
    one, two = (network("hf:facebook/deit-tiny", task, 4) for _ in range(2))
    images = torch.rand(2, 1, 32, 32)
    assert one(images).shape == (2, 6)
    assert torch.equal(one(images), two(images))


def test_a_real_network_of_hugging_face(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.ViTConfig(
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=24,
        patch_size=8,
    ).save_pretrained(tmp_path)
    task = pictures((1, 16, 16), 6)
    built = network(f"hf:{tmp_path}", task, 0)
    assert built(torch.zeros(2, 1, 16, 16)).shape == (2, 6)
    assert isinstance(built, Resized)
    built.network.save_pretrained(tmp_path)
    given = published(f"hf:{tmp_path}", task, 1)
    assert torch.equal(given(torch.ones(2, 1, 16, 16)), built(torch.ones(2, 1, 16, 16)))
    others = published(f"hf:{tmp_path}", pictures((1, 16, 16), 4), 1)  # other classes
    assert others(torch.ones(2, 1, 16, 16)).shape == (2, 4)
