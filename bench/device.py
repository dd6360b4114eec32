"""On a GPU: whether results are right, then what everything costs, within five minutes.

`python bench/device.py` needs a CUDA device; `--dry` runs all of it on the CPU with small numbers,
so that the script itself is tested. Every line is printed as soon as it is known. Ratios are of
times taken in turn in one run.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import momos
from momos.study.tasks.architectures import VIT_SIZE, Resized, mlp, resnet20, vit_tiny
from momos.vq.gather import gather, sum_by_motif
from momos.vq.nearest import nearest, nearest_reference, searcher

LIMIT = 300.0  # seconds, after which no further table is begun


@dataclass(frozen=True)
class Machine:
    """The device, and how large the numbers are."""

    device: torch.device
    dry: bool

    def of(self, number: int) -> int:
        """A number of weights or blocks, small in a dry run."""
        return max(64, number // 2000) if self.dry else number

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, *works: Callable[[], object], repeat: int = 20) -> list[float]:
        """The median time of each, taken in turn, the device idle before and after."""
        repeat = 2 if self.dry else repeat
        for work in works:  # compiles, and fills caches
            work()
            work()
        times: list[list[float]] = [[] for _ in works]
        for _ in range(repeat):
            for work, own in zip(works, times, strict=True):
                self.wait()
                begun = time.perf_counter()
                work()
                self.wait()
                own.append(time.perf_counter() - begun)
        return [statistics.median(own) for own in times]

    def normal(self, *shape: int) -> Tensor:
        g = torch.Generator().manual_seed(0)
        return torch.randn(*shape, generator=g).to(self.device)


def say(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def head(*cells: str) -> None:
    print()
    say(*cells)
    say(*("---" for _ in cells))


def ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"


def captured_steps_repeat(machine: Machine) -> bool:
    """A captured graph of a capturable step, replayed, against steps that are not captured."""
    found = []
    for capturable in (True, False):
        model = small(machine.device)
        config = momos.MosaicConfig.learned(num_motifs=32, rate_weight=0.3)
        momos.parametrize_(model, config, learn="weights")
        reassign = momos.Reassign(model, total_steps=40, capturable=capturable)
        step = captured(machine, reassign.step) if capturable else reassign.step
        for _ in range(0 if capturable and not machine.dry else 3):
            step()  # as often as before the capture
        for number in range(12):
            with torch.no_grad():
                for weight in model.parameters():
                    shift = (torch.arange(weight.numel()) + number).sin()
                    weight.add_(0.05 * shift.view(weight.shape).to(weight.device))
            step()
        found.append((reassign.steps, reassign.bank.indices, reassign.bank.motifs))
    (count, *tensors), (steps, *others) = found
    return count == steps == 15 and all(map(torch.equal, tensors, others))


def captured(machine: Machine, work: Callable[[], object]) -> Callable[[], object]:
    """The work as a CUDA graph that is replayed; in a dry run the work itself."""
    if machine.dry:
        return work
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # compiles, and makes what is kept
            work()
    with torch.cuda.graph(graph, stream=stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)
    return graph.replay


def correctness(machine: Machine) -> Iterator[tuple[str, bool]]:
    """What must hold before any time means something."""
    for size, k in ((1, 300), (2, 4096), (4, 256), (8, 256)):
        blocks, motifs = machine.normal(machine.of(60_000), size), machine.normal(k, size)
        found = torch.cat([nearest_reference(part, motifs) for part in blocks.split(2048)])
        yield f"nearest, s={size}, k={k}", torch.equal(nearest(blocks, motifs), found)
    rows = machine.normal(machine.of(200_000), 2)
    indices = nearest(rows, rows[:64].clone())
    sums = [sum_by_motif(rows, indices, 64) for _ in range(3)]
    here = sum_by_motif(rows.cpu(), indices.cpu(), 64)
    yield "sum_by_motif repeats", all(torch.equal(sums[0], each) for each in sums)
    yield "sum_by_motif is the CPU's", torch.allclose(sums[0].cpu(), here, rtol=1e-6)
    config = momos.MosaicConfig(block_size=2, capacity=0.05)
    there, cpu = small(machine.device), small("cpu")
    momos.project_(there, config)
    momos.project_(cpu, config)
    yield "project_ is the CPU's", equal(there, cpu)
    yield "steps learn the CPU's indices", steps_agree(machine)
    yield "a captured step repeats", captured_steps_repeat(machine)


def small(device: torch.device | str) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10)).to(device)


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a.detach().cpu(), b.detach().cpu()) for a, b in pairs)


def steps_agree(machine: Machine) -> bool:
    """The same weights at each step, set from outside."""
    models = [small(machine.device), small("cpu")]
    config = momos.MosaicConfig.learned(num_motifs=32, rate_weight=0.3)
    follow = []
    for model in models:
        importance = {"0.weight": 1.0, "2.weight": 2.0}
        momos.parametrize_(model, config, learn="weights", importance=importance)
        follow.append(momos.Reassign(model, total_steps=10))
    follow[0].bank.motifs.copy_(follow[1].bank.motifs)
    follow[0].bank.indices.copy_(follow[1].bank.indices)
    follow[0].bank.start_(learning=True)
    for step in range(8):
        for model in models:
            with torch.no_grad():
                for weight in model.parameters():
                    shift = (torch.arange(weight.numel()) + step).sin().view(weight.shape)
                    weight.add_(0.05 * shift.to(weight.device))
        for each in follow:
            each.step()
        indices = [each.bank.indices.cpu() for each in follow]
        follow[0].bank.motifs.copy_(follow[1].bank.motifs)  # sums are in another order
        if not torch.equal(*indices):
            return False
    return True


def table_of_nearest(machine: Machine) -> None:
    head("nearest", "time", "÷ one pass over the weights", "÷ matrix product")
    cases = (
        *((986_634, 2, 24_665), (5_526_346, 2, 138_158), (5_526_346, 4, 256)),
        *((5_526_346, 8, 256), (5_526_346, 2, 64), (85_000_000, 2, 4096)),
    )
    for weights, size, motifs in cases:
        blocks = machine.normal(machine.of(weights) // size, size)
        bank = machine.normal(min(motifs, len(blocks)), size)
        own, once, product = times_of_nearest(machine, blocks, bank)
        name = f"n={weights:,}, s={size}, k={motifs:,}"
        say(name, ms(own), f"{own / once:.1f}", f"{own / product:.2f}")


def times_of_nearest(machine: Machine, blocks: Tensor, bank: Tensor) -> list[float]:
    """Of the search, one pass, and the matrix product, which is timed on part of the blocks."""
    search, out = searcher(bank), torch.empty_like(blocks)
    few = blocks[: max(1, 2**28 // len(bank))]
    own, once, product = machine.seconds(
        lambda: search(blocks),
        lambda: torch.add(blocks, 1, out=out),
        lambda: (few @ bank.T).argmax(1),
        repeat=7,
    )
    return [own, once, product * len(blocks) / len(few)]


def table_of_sums(machine: Machine) -> None:
    head("work", "time", "÷ one pass")
    rows = machine.normal(machine.of(2_763_173), 2)
    out = torch.empty_like(rows)
    for name, share in (("even usage", 1.0), ("half in one motif", 0.5)):
        indices = torch.randint(64, (len(rows),), dtype=torch.int32)
        indices[torch.rand(len(rows)) > share] = 0
        indices = indices.to(machine.device)
        summed, gathered, once = machine.seconds(
            lambda indices=indices: sum_by_motif(rows, indices, 64),
            lambda indices=indices: gather(rows[:64], indices),
            lambda: torch.add(rows, 1, out=out),
        )
        say(f"sum_by_motif, k=64, {name}", ms(summed), f"{summed / once:.1f}")
        say(f"gather, k=64, {name}", ms(gathered), f"{gathered / once:.1f}")
    points = machine.normal(machine.of(1_000_000), 4)
    g = torch.Generator().manual_seed(0)
    (means,) = machine.seconds(
        lambda: momos.kmeans_motifs(points, 256, generator=g.manual_seed(0)), repeat=3
    )
    say("k-means, 10⁶ × 4, k=256, 25 iterations", ms(means), "–")


def table_of_projectors(machine: Machine) -> None:
    head("Projector.step", "time", "÷ one pass over the weights")
    for name, build, _, _ in networks(machine):
        model = build().to(machine.device)
        projector = momos.Projector(model, momos.MosaicConfig(block_size=2, capacity=0.05))
        weights = [p.detach() for p in model.parameters()]
        flat = torch.cat([weight.reshape(-1) for weight in weights])
        out = torch.empty_like(flat)

        def fresh(weights: list[Tensor] = weights, flat: Tensor = flat) -> None:
            """Weights that are no mosaic yet, as after a step of an optimizer."""
            start = 0
            for weight in weights:
                weight.view(-1).copy_(flat[start : start + weight.numel()])
                start += weight.numel()

        def both(projector: momos.Projector = projector, fresh=fresh) -> None:
            fresh()
            projector.step()

        whole, copying, once = machine.seconds(
            both, fresh, lambda flat=flat, out=out: torch.add(flat, 1, out=out), repeat=7
        )
        own = max(whole - copying, 0.0)
        say(name, ms(own), f"{own / once:.1f}")


def table_of_projections(machine: Machine) -> None:
    head("project_", "time", "÷ nearest alone")
    for weights in (986_634, 5_526_346, 85_000_000):
        side = max(8, int(machine.of(weights) ** 0.5))
        model = nn.Linear(side, side, bias=False).to(machine.device)
        config = momos.MosaicConfig(block_size=2, num_motifs=min(4096, side))
        blocks = model.weight.detach().view(-1)[: side * side // 2 * 2].view(-1, 2).clone()
        search = searcher(blocks[: config.motifs_for(len(blocks))].clone())
        whole, alone = machine.seconds(
            lambda model=model, config=config: momos.project_(model, config),
            lambda search=search, blocks=blocks: search(blocks),
            repeat=5,
        )
        say(f"n={weights:,}, s=2", ms(whole), f"{whole / alone:.1f}")


KINDS = (
    "motifs",
    "weights every=1",
    "weights every=1, sensitivities",
    "weights every=1, capturable and captured",
)


def networks(
    machine: Machine,
) -> Iterator[tuple[str, Callable[[], nn.Module], Tensor, bool]]:
    if machine.dry:
        yield "small", lambda: small("cpu"), machine.normal(8, 64), True
        return
    images = machine.normal(128, 3, 32, 32)
    yield "MLP", mlp, images, False
    yield "ResNet-20", resnet20, images, False
    yield "ViT-Tiny, bf16", lambda: Resized(vit_tiny(), VIT_SIZE), images, True


def table_of_steps(machine: Machine) -> None:
    head("training step", "time", "÷ plain")
    for name, build, images, half in networks(machine):
        labels = torch.arange(len(images), device=machine.device) % 10
        (plain,) = machine.seconds(training(machine, build, images, labels, half, ""))
        say(f"{name}, plain", ms(plain), "1")
        for kind in KINDS:
            work = training(machine, build, images, labels, half, kind)
            plainly = training(machine, build, images, labels, half, "")
            own, plain = machine.seconds(work, plainly)
            say(f"{name}, {kind}", ms(own), f"{own / plain:.2f}")


def training(
    machine: Machine,
    build: Callable[[], nn.Module],
    images: Tensor,
    labels: Tensor,
    half: bool,
    kind: str,
) -> Callable[[], object]:
    torch.manual_seed(0)
    model = build().to(images.device)

    def loss() -> Tensor:
        kinds = images.device.type, torch.bfloat16
        with torch.autocast(*kinds) if half else nullcontext():
            return cross_entropy(model(images).float(), labels)

    reassign = None
    if kind:
        config = momos.MosaicConfig.learned(num_motifs=64, rate_weight=0.5, scales="tensor")
        importance = None
        if kind.endswith("sensitivities"):
            importance = momos.sensitivities(model, [0], lambda _: loss())
        learn = "motifs" if kind == "motifs" else "weights"
        momos.parametrize_(model, config, learn=learn, importance=importance)
        if learn == "weights":
            capturable = kind.endswith("captured")
            reassign = momos.Reassign(model, total_steps=10_000, capturable=capturable)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        if reassign is not None:
            reassign.step()

    return captured(machine, step) if kind.endswith("captured") else step


def machine_of(arguments: list[str]) -> Machine:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry", action="store_true", help="on the CPU, with small numbers")
    dry = parser.parse_args(arguments).dry
    if not dry and not torch.cuda.is_available():
        sys.exit("a CUDA device must be there, but torch sees none (--dry needs none)")
    return Machine(torch.device("cpu" if dry else "cuda"), dry)


TABLES = (
    table_of_steps,
    table_of_nearest,
    table_of_sums,
    table_of_projections,
    table_of_projectors,
)


def main(arguments: list[str] | None = None) -> None:
    begun, machine = time.perf_counter(), machine_of(arguments or sys.argv[1:])
    name = "the CPU, dry" if machine.dry else torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}, momos {momos.__version__}", flush=True)
    wrong = []
    for what, right in correctness(machine):
        print(f"{'right' if right else 'WRONG'}: {what}", flush=True)
        wrong += [] if right else [what]
    for table in TABLES:
        if time.perf_counter() - begun > LIMIT:
            print(f"{table.__name__} left out: {LIMIT:.0f} s are over", flush=True)
            continue
        table(machine)
    print(f"\n{time.perf_counter() - begun:.0f} s", flush=True)
    if wrong:
        sys.exit(f"wrong: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
