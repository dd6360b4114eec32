"""Networks by name, for the inputs and classes of a task, untrained or with published weights."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from math import prod

from torch import nn

from momos.study.packages import needed
from momos.study.tasks import architectures as nets
from momos.study.tasks.archives import published_resnet
from momos.study.tasks.task import Task, seeded

CIFAR10 = (  # tasks
    *("resnet20", "resnet20-scratch", "resnet20-wide"),
    *("cifar10-mlp", "cifar10-vit"),
)
PUBLISHED_DEPTHS = (20, 56)  # akamaster/pytorch_resnet_cifar10
TRANSFORMER = {"depth": 4, "width": 144, "heads": 4}


@dataclass(frozen=True)
class Family:
    """Networks whose names begin alike, as `form` does, for tasks of a kind.

    `build` gets what a name has after its colon; where `form` has no colon, no name has.
    """

    form: str
    build: Callable[[str, Task], nn.Module]
    kind: str = "image"
    published: Callable[[str, Task], nn.Module] | None = None


def network(name: str, task: Task, seed: int) -> nn.Module:
    """The network of that name for a task; without a name, the task's own.

    Raises:
        ImportError: if the package that it comes from is not installed.
        ValueError: if there is no such network, or it does not take the task's inputs.
    """
    if not name:
        return task.network(seed)
    family, settings = _family(name, task)
    return seeded(lambda: family.build(settings, task))(seed)


def untrained(name: str, task: Task, seed: int) -> nn.Module:
    """As `network`; also where the task's own network is a published one."""
    if not name and task.untrained is not None:
        return task.untrained(seed)
    return network(name, task, seed)


def published(name: str, task: Task, seed: int) -> nn.Module:
    """The network of that name, or the task's own, with the weights that its authors published.

    Of timm and Hugging Face, an output layer for other classes than the task's starts afresh,
    from the seed.

    Raises:
        ImportError: if the package that it comes from is not installed.
        ValueError: if there is no such network, or no weights of it for the task.
    """
    load = check_published(name, task)
    return task.network(seed) if load is None else seeded(load)(seed)


def check_published(name: str, task: Task) -> Callable[[], nn.Module] | None:
    """What loads the published weights of that name; None if the task's own network has them."""
    if not name and task.untrained is not None:
        return None
    family, settings = _family(name, task) if name else (None, "")
    if family is None or family.published is None:
        known = [known.form for known in NETWORKS.values() if known.published]
        got = repr(name) if name else f"that of the task {task.name!r}"
        raise ValueError(
            f"network must be one with published weights ({', '.join(known)}, or that of the "
            f"task resnet20), got {got}"
        )
    return partial(family.published, settings, task)


def _family(name: str, task: Task) -> tuple["Family", str]:
    stem, colon, settings = name.partition(":")
    family = NETWORKS.get(stem)
    if family is None or (colon and ":" not in family.form):
        forms = [known.form for known in NETWORKS.values()]
        near = get_close_matches(stem, NETWORKS)
        raise ValueError(f"network must be one of {', '.join(forms)}, {_got(name, near)}")
    if task.kind != family.kind or not task.outputs:
        raise ValueError(
            f"task must have inputs of the kind {family.kind!r} for {name}, but {task.name!r} "
            f"has {task.inputs} of the kind {task.kind!r}"
        )
    return family, settings


def _mlp(widths: str, task: Task) -> nn.Module:
    hidden = [_number("widths of mlp", width) for width in widths.split("-")]
    return nets.mlp((prod(task.inputs), *hidden, task.outputs))


def _mlp_paper(settings: str, task: Task) -> nn.Module:
    return nets.mlp((prod(task.inputs), *nets.PAPER_WIDTHS[1:-1], task.outputs))


def _resnet(depth: int) -> Family:
    def build(settings: str, task: Task) -> nn.Module:
        channels, _ = _image(task)
        return nets.ResNet(depth, num_classes=task.outputs, channels=channels)

    def load(settings: str, task: Task) -> nn.Module:
        if task.name not in CIFAR10:
            raise ValueError(
                f"task must be among {', '.join(CIFAR10)} for the published weights of "
                f"resnet{depth}, got {task.name!r}"
            )
        return published_resnet(depth, build(settings, task))

    weighted = depth in PUBLISHED_DEPTHS
    return Family(f"resnet{depth}", build, published=load if weighted else None)


def _vit_tiny(patch: str, task: Task) -> nn.Module:
    """At 224 pixels; with a patch, at the pixels that there are."""
    channels, side = _image(task)
    shape = {"num_classes": task.outputs, "channels": channels}
    if not patch:
        return nets.Resized(nets.vit_tiny(**shape), nets.VIT_SIZE)
    pixels = _number("patch of vit-tiny", patch)
    return nets.Resized(nets.vit_tiny(**shape, size=side, patch=pixels), side)


def _transformer(settings: str, task: Task) -> nn.Module:
    chosen = dict(TRANSFORMER)
    for pair in filter(None, settings.split(",")):
        key, _, value = pair.partition("=")
        if key not in TRANSFORMER:
            raise ValueError(
                f"settings of transformer must be among {', '.join(TRANSFORMER)}, "
                f"{_got(key, get_close_matches(key, TRANSFORMER))}"
            )
        chosen[key] = _number(f"{key} of transformer", value)
    if chosen["width"] % chosen["heads"]:
        raise ValueError(
            f"width of transformer must be a multiple of its heads, {chosen['heads']}, got "
            f"{chosen['width']}"
        )
    chosen["num_heads"] = chosen.pop("heads")
    return nets.CharacterTransformer(task.outputs, context=task.inputs[0], **chosen)


def _grokking(width: str, task: Task) -> nn.Module:
    return nets.PairNetwork(_number("width of grokking", width), modulus=task.outputs)


def _timm(name: str, task: Task, *, pretrained: bool = False) -> nn.Module:
    about = {"num_classes": task.outputs, "in_chans": _image(task)[0]}
    found = needed("timm", "timm").create_model(name, pretrained=pretrained, **about)
    config = found.pretrained_cfg
    fixed = config.get("fixed_input_size")
    return nets.Resized(found, config["input_size"][-1] if fixed else None)


def _hugging_face(name: str, task: Task, *, pretrained: bool = False) -> nn.Module:
    transformers = needed("transformers", nets.TRANSFORMERS)
    config = transformers.AutoConfig.from_pretrained(name)
    config.num_labels, config.num_channels = task.outputs, _image(task)[0]
    size = getattr(config, "image_size", None)
    models = transformers.AutoModelForImageClassification
    if pretrained:
        found = models.from_pretrained(name, config=config, ignore_mismatched_sizes=True)
    else:
        found = models.from_config(config)
    return nets.Resized(found, size if isinstance(size, int) else None)


NETWORKS: dict[str, Family] = {
    "mlp": Family("mlp:256-128", _mlp),
    "mlp-paper": Family("mlp-paper", _mlp_paper),
    **{f"resnet{depth}": _resnet(depth) for depth in (20, 32, 44, 56, 110)},
    "vit-tiny": Family("vit-tiny[:PATCH]", _vit_tiny),
    "transformer": Family("transformer:depth=4,width=144,heads=4", _transformer, "text"),
    "grokking": Family("grokking:256", _grokking, "pair"),
    "timm": Family("timm:NAME", _timm, published=partial(_timm, pretrained=True)),
    "hf": Family(
        "hf:NAME", _hugging_face, published=partial(_hugging_face, pretrained=True)
    ),
}


def _image(task: Task) -> tuple[int, int]:
    if len(task.inputs) != 3 or task.inputs[1] != task.inputs[2]:
        raise ValueError(
            f"inputs must be square images with channels, got {task.inputs} of {task.name!r}"
        )
    return task.inputs[0], task.inputs[1]


def _number(what: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{what} must be whole numbers of at least 1, got {text!r}")
    return int(text)


def _got(name: str, near: list[str]) -> str:
    return f"got {name!r}" + (f" (near: {', '.join(near)})" if near else "")
