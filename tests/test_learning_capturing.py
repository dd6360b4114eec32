"""Steps with `capturable` are those without, count on the device, and go through torch.compile."""

import copy
import importlib.util
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

import momos
from elsewhere import pretended
from momos import MosaicConfig, Reassign

CONFIG = MosaicConfig.learned(num_motifs=9, rate_weight=0.3)
# torch.compile makes an instance of autograd.Function itself, and torch warns of that.
COMPILES = pytest.mark.filterwarnings("ignore:.*should not be instantiated")


def learning(device: Any = "cpu", **options: Any) -> tuple[nn.Module, Reassign]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4)).to(device)
    momos.parametrize_(model, CONFIG, learn="weights")
    settings: dict[str, Any] = {"total_steps": 6} | options
    return model, Reassign(model, **settings)


def move(model: nn.Module, step: int) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            shift = (torch.arange(weight.numel()) + step).sin().view(weight.shape)
            weight.add_(0.1 * shift.to(weight.device))


def test_steps_are_those_without() -> None:
    (ours, capturable), (theirs, plain) = learning(capturable=True), learning()
    for step in range(6):
        move(ours, step)
        move(theirs, step)
        assert capturable.step() is None
        plain.step()
        assert capturable.steps == plain.steps == step + 1
        assert capturable.rate_weight == plain.rate_weight
        state, other = ours.state_dict(), theirs.state_dict()
        assert all(torch.equal(state[name], other[name]) for name in other)
    capturable.check()
    assert capturable.state_dict()["steps"] == 6
    again = learning(capturable=True)[1]
    again.load_state_dict(capturable.state_dict())
    assert again.steps == 6


def test_a_copy_steps_by_itself() -> None:
    model, schedule = learning(capturable=True)
    schedule.step()
    other = copy.deepcopy(schedule)
    move(model, 0)
    other.step()
    assert (schedule.steps, other.steps) == (1, 2)
    schedule.step()
    assert (schedule.steps, other.steps) == (2, 2)
    assert not torch.equal(schedule.bank.motifs, other.bank.motifs)  # its weights stayed


@COMPILES
def test_an_optimizer_s_step_and_ours_compile_into_one_graph() -> None:
    torch.compiler.reset()
    found = []
    for compiled in (False, True):
        model, schedule = learning(capturable=True)

        def train(model: nn.Module = model, schedule: Reassign = schedule) -> None:
            with torch.no_grad():
                for number, weight in enumerate(model.parameters()):
                    weight.mul_(1.0 + 0.1 * number)
            schedule.step()

        work = torch.compile(train, backend="aot_eager", fullgraph=True)
        for step in range(4):
            move(model, step)
            (work if compiled else train)()
        loss = model(torch.ones(5, 8)).sum()
        found.append((schedule.steps, loss.detach(), model.state_dict()))
    (count, loss, state), (steps, other, compiled_state) = found
    assert count == steps == 4
    torch.testing.assert_close(loss, other)
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, compiled_state[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 3}, "every must be 1 for capturable, .*, got 3"),
        ({"dense": 0.1}, r"dense must be 0 for capturable, .*, got 0\.1"),
    ],
)
def test_what_cannot_be_captured_is_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        learning(capturable=True, **options)


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
@pytest.mark.filterwarnings("ignore:momos has no engine for cuda:UserWarning")
def test_a_step_waits_for_nothing_and_uploads_nothing() -> None:
    """So a graph can be captured of it, and replayed: its count is on the device."""
    import momos.vq.cpu
    import momos.vq.nearest
    from momos.vq import together

    seen: list[Tensor] = []

    def assigned(table: Any, motifs: Tensor, *args: Any, **options: Any) -> Any:
        seen.append(options["fixed"])
        sums = motifs.double()
        flags = table.fields[:, 0].int() * 0
        return together.Assigned(sums, sums[:, 0] * 0, sums[:, 0].long() * 0 + 1, flags)

    with ExitStack() as stack:
        where = stack.enter_context(pretended("cuda:0"))
        stack.enter_context(patch.object(together, "assign", assigned))
        stack.enter_context(patch.object(together, "write", lambda *args: None))
        stack.enter_context(
            patch.object(momos.vq.nearest, "_MAKERS", {"cpu": momos.vq.cpu.searcher})
        )
        _, schedule = learning(where.device, total_steps=10, capturable=True, fixed=0.2)
        captured = schedule.captured
        assert captured is not None
        captured.clock.add_(1)
        schedule.advance_()  # makes the tables
        where.waits.clear()
        where.uploads = 0
        for _ in range(9):
            captured.clock.add_(1)
            schedule.advance_()
        assert not where.waits
        assert not where.uploads
        assert [bool(each) for each in seen] == [False] * 8 + [True] * 2
        assert float(schedule.bank.rate_weight) == pytest.approx(schedule.rate_weight)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_captured_graph_repeats_the_steps() -> None:
    (ours, capturable), (theirs, plain) = [
        learning("cuda", capturable=kind, total_steps=20) for kind in (True, False)
    ]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):  # compiles, and makes the tables
            capturable.step()
            plain.step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        capturable.step()
    for step in range(12):
        move(ours, step)
        move(theirs, step)
        graph.replay()
        plain.step()
        assert torch.equal(capturable.bank.indices, plain.bank.indices)
        assert torch.equal(capturable.bank.motifs, plain.bank.motifs)
    assert capturable.steps == plain.steps == 15
