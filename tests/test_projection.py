"""A projection replaces each block by its nearest motif and touches nothing else."""

import pickle
from contextlib import suppress
from copy import deepcopy
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from momos import (
    Layout,
    Mosaic,
    MosaicConfig,
    Projector,
    blocks,
    distinct_motifs,
    mosaic,
    nearest_reference,
    project_,
)
from momos.blocks import DTYPES

SELECTIONS = ["sample", "distinct", "kmeans"]


class Network(nn.Module):
    """Convolution, norm with buffers, tied embedding, a frozen weight and a scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.embedding = nn.Embedding(11, 4)
        self.head = nn.Linear(4, 11)
        self.head.weight = self.embedding.weight
        self.frozen = nn.Parameter(torch.randn(5), requires_grad=False)
        self.scale = nn.Parameter(torch.tensor(1.3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.convolution(x)).mean((2, 3))) * self.scale


def network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return Network()


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def assert_unchanged(model: nn.Module, before: dict[str, Tensor]) -> None:
    for name, value in model.named_parameters():
        assert torch.equal(value.nan_to_num(), before[name].nan_to_num()), name


@st.composite
def models(draw) -> nn.Module:
    """Parameters of one or several dtypes, spread out or close to 1."""
    shape = st.lists(st.integers(1, 7), max_size=3)
    kinds = draw(
        st.lists(st.tuples(shape, st.sampled_from(DTYPES)), min_size=1, max_size=3)
    )
    centre, spread = draw(st.sampled_from([(0, 1), (1, 2.0**-6), (1, 2.0**-20)]))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    return nn.ParameterDict(
        {
            f"p{i}": (centre + spread * torch.randn(shape, generator=g)).to(dtype)
            for i, (shape, dtype) in enumerate(kinds)
        }
    )


CONFIGS = st.builds(
    MosaicConfig,
    block_size=st.integers(1, 5),
    num_motifs=st.integers(1, 30),
    selection=st.sampled_from(SELECTIONS),
    zero_motif=st.booleans(),
    seed=st.integers(0, 999),
    min_ndim=st.just(0),
)


# What a projection does


@pytest.mark.parametrize("min_ndim", [None, 0, 1, 2, 4])
def test_parameters_of_few_dimensions_stay_dense(min_ndim):
    model = network()
    torch.nn.utils.vector_to_parameters(
        torch.randn(sum(p.numel() for p in model.parameters())), model.parameters()
    )
    before = weights(model)
    project_(model, MosaicConfig(num_motifs=2, min_ndim=min_ndim))
    least = 1 if min_ndim is None else min_ndim
    for name, value in model.named_parameters():
        dense = value.ndim < least or not value.requires_grad
        assert torch.equal(value, before[name]) == dense, name


SETTINGS = [
    ({"scales": "tensor"}, "scales='tensor'"),
    ({"rate_weight": 0.5}, r"rate_weight=0\.5"),
    ({"bits": 16}, "bits=16"),
    ({"dense_dtype": "float16"}, "dense_dtype='float16'"),
    ({"groups": (("0.*",),)}, r"groups=\(\('0\.\*',\),\)"),
    ({"bits": 8, "scales": "channel"}, "scales='channel', bits=8"),
]


@pytest.mark.parametrize(("settings", "named"), SETTINGS)
def test_settings_that_a_projection_cannot_keep_are_named(settings, named):
    model = network()
    before = weights(model)
    config = MosaicConfig(num_motifs=3, **settings)
    for refused in (project_, Projector):
        with pytest.raises(ValueError, match=rf"got {named} \(.*parametrize_.*freeze_"):
            refused(model, config)
    assert_unchanged(model, before)


@given(model=models(), config=CONFIGS)
def test_each_block_becomes_its_nearest_motif_or_does_not_move(model, config):
    layout = Layout.of(model, block_size=config.block_size)
    before = layout.read(model)
    value = project_(model, config).mosaic
    assert value.num_motifs <= config.num_motifs
    moved = (layout.read(model) != before).any(1)
    nearest = nearest_reference(before, value.motifs)
    assert torch.equal(value.indices.long()[moved], nearest[moved])
    for placement, parameter in zip(layout.placements, model.parameters(), strict=True):
        indices = value.indices[placement.start : placement.stop].int()
        written = value.motifs[indices].to(parameter.dtype).flatten()
        assert torch.equal(parameter, written[: parameter.numel()].view_as(parameter))


@given(model=models(), config=CONFIGS)
def test_the_distortion_and_the_moved_weights_are_those_of_the_model(model, config):
    before = weights(model)
    projection = project_(model, config)
    distortion = moved = 0.0
    for name, after in model.named_parameters():
        distortion += float(
            (before[name].double() - after.detach().double()).square().sum()
        )
        moved += int((before[name] != after).sum())
    assert projection.distortion == pytest.approx(distortion, rel=1e-12)
    assert projection.moved == moved
    assert isinstance(projection.distortion, float)
    assert isinstance(projection.moved, int)


@given(model=models(), config=CONFIGS)
def test_projecting_again_with_the_same_motifs_moves_nothing(model, config):
    first = project_(model, config)
    before = weights(model)
    again = project_(model, config, motifs=first.mosaic.motifs)
    assert (again.moved, again.distortion) == (0, 0)
    assert_unchanged(model, before)


@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("selection", SELECTIONS)
def test_motifs_finer_than_a_parameter_move_nothing_the_second_time(narrow, selection):
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        near = 1 + 4 * torch.finfo(narrow).eps * torch.randn(2, 300, generator=g)
        model = nn.ParameterDict({"narrow": near[0].to(narrow), "wide": near[1]})
        config = MosaicConfig(num_motifs=100, selection=selection, seed=seed)
        motifs = project_(model, config).mosaic.motifs
        assert project_(model, config, motifs=motifs).moved == 0


@pytest.mark.parametrize("selection", SELECTIONS)
def test_weights_in_padded_blocks_do_not_move_the_second_time(selection):
    for seed in range(10):
        torch.manual_seed(seed)
        shapes = [(), (3,), (5,), (2, 3)] * 5
        model = nn.ParameterDict(
            {f"p{i}": torch.randn(shape) for i, shape in enumerate(shapes)}
        )
        for block_size in (2, 4):
            config = MosaicConfig(
                block_size=block_size, num_motifs=9, selection=selection, min_ndim=0
            )
            motifs = project_(model, config).mosaic.motifs
            assert project_(model, config, motifs=motifs).moved == 0


def test_a_padded_block_that_is_half_a_motif_becomes_its_nearest():
    model = nn.ParameterDict({"a": torch.tensor([1.0, 2.0])})
    motifs = torch.tensor([[1.0, 1.9, 9.0, 9.0], [1.2, 2.2, 0.0, 0.0]])
    project_(model, MosaicConfig(block_size=4, num_motifs=2), motifs=motifs)
    assert torch.equal(model["a"], motifs[1, :2])


@given(model=models(), config=CONFIGS)
def test_padding_and_rounding_make_the_distortion_no_larger(model, config):
    """Than with the nearest motif of each padded block, rounded when it is written."""
    before = deepcopy(model)
    layout = Layout.of(model, block_size=config.block_size)
    projection = project_(model, config)
    bank = projection.mosaic.motifs
    plain = Mosaic(bank, nearest_reference(layout.read(before), bank), layout)
    distortion = sum(
        float((value.detach().double() - plain.dense()[name].double()).square().sum())
        for name, value in before.named_parameters()
    )
    assert projection.distortion <= distortion * (1 + 1e-12)


def test_a_scalar_is_compared_by_its_value_not_by_its_padding():
    model = nn.ParameterDict({"scale": torch.tensor(1.0)})
    motifs = torch.tensor([[0.9, 0.5], [0.45, 0.1]])
    project_(model, MosaicConfig(num_motifs=2, min_ndim=0), motifs=motifs)
    assert model["scale"].item() == motifs[0, 0].item()


@given(model=models(), seed=st.integers(0, 999))
def test_motifs_may_be_given_in_any_dtype(model, seed):
    config = MosaicConfig(num_motifs=1, min_ndim=0)
    motifs = torch.randn(20, 2, generator=torch.Generator().manual_seed(seed))
    for dtype in DTYPES:
        given = motifs.to(dtype)
        value = project_(model, config, motifs=given).mosaic
        assert torch.equal(value.motifs, given)
        assert project_(model, config, motifs=given).moved == 0


@pytest.mark.parametrize("selection", ["distinct", "kmeans"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_with_a_motif_for_every_different_block_nothing_is_lost(selection, dtype):
    model = network().to(dtype)
    before = weights(model)
    for num_motifs in (112, 10_000):  # 111 different blocks at most, and the zero motif
        config = MosaicConfig(num_motifs=num_motifs, selection=selection)
        projection = project_(model, config)
        assert (projection.distortion, projection.moved) == (0, 0)
        assert_unchanged(model, before)


def test_nothing_depends_on_the_size_of_pieces():
    config = MosaicConfig(num_motifs=20, block_size=3)
    whole, pieces = network(), network()
    first = project_(whole, config)
    with patch.object(blocks, "PIECE", 5), patch.object(mosaic, "PIECE", 3):
        second = project_(pieces, config)
    assert_unchanged(pieces, weights(whole))
    assert torch.equal(first.mosaic.indices, second.mosaic.indices)
    assert (second.moved, second.distortion) == (
        first.moved,
        pytest.approx(first.distortion),
    )


def test_the_number_of_motifs_follows_the_capacity():
    value = project_(network(), MosaicConfig(block_size=2, capacity=0.1)).mosaic
    assert value.num_motifs == value.layout.num_blocks // 10


def test_without_a_generator_the_seed_decides():
    models = [network() for _ in range(3)]
    banks = [
        project_(model, MosaicConfig(num_motifs=9, seed=seed)).mosaic.motifs
        for model, seed in zip(models, (4, 4, 5), strict=True)
    ]
    assert torch.equal(banks[0], banks[1])
    assert not torch.equal(banks[0], banks[2])


def test_a_generator_is_drawn_from_and_the_global_one_is_not():
    g, models = torch.Generator().manual_seed(4), [network() for _ in range(3)]
    state = torch.get_rng_state()
    first, second = (
        project_(model, MosaicConfig(num_motifs=9), generator=g).mosaic.motifs
        for model in models[:2]
    )
    third = project_(models[2], MosaicConfig(num_motifs=9, seed=4)).mosaic.motifs
    assert not torch.equal(first, second)
    assert torch.equal(first, third)
    assert torch.equal(torch.get_rng_state(), state)


# What it leaves alone


@pytest.mark.parametrize("selection", SELECTIONS)
def test_only_the_chosen_weights_are_touched(selection):
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    model(torch.randn(6, 3, 5, 5)).square().mean().backward()
    optimizer.step()
    parameters = dict(model.named_parameters())
    places = {
        name: (value.data_ptr(), value.stride()) for name, value in parameters.items()
    }
    gradients = {
        name: value.grad.clone()
        for name, value in parameters.items()
        if value.grad is not None
    }
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    state, before = deepcopy(optimizer.state_dict()), weights(model)
    config = MosaicConfig(num_motifs=7, selection=selection, exclude=("norm.*", "scale"))
    assert project_(model, config).moved > 0
    assert dict(model.named_parameters()).keys() == parameters.keys()
    for name, value in model.named_parameters():
        assert value is parameters[name]
        assert (value.data_ptr(), value.stride()) == places[name]
        assert value.requires_grad == (name != "frozen")
    for name, gradient in gradients.items():
        assert torch.equal(parameters[name].grad, gradient)
    for name, value in model.named_buffers():
        assert torch.equal(value, buffers[name])
    for name in ("norm.weight", "norm.bias", "scale", "frozen"):
        assert torch.equal(parameters[name], before[name])
    for key, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, state["state"][key][name])
    optimizer.step()  # still trains these parameters
    with pytest.raises(ValueError, match="has changed since it was projected"):
        Mosaic.of(model)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_formats_are_kept_and_do_not_change_the_result(memory_format):
    plain, other = network(), network().to(memory_format=memory_format)
    config = MosaicConfig(num_motifs=20)
    project_(plain, config)
    project_(other, config)
    weight = other.convolution.weight
    assert weight.is_contiguous(memory_format=memory_format)
    assert_unchanged(other, weights(plain))


def test_a_tied_embedding_stays_tied_and_is_projected_once():
    model = network()
    projection = project_(model, MosaicConfig(num_motifs=20))
    assert model.head.weight is model.embedding.weight
    names = [placement.name for placement in projection.mosaic.layout.placements]
    assert "embedding.weight" in names
    assert "head.weight" not in names
    assert torch.equal(projection.mosaic.dense()["embedding.weight"], model.head.weight)
    Mosaic.of(model)


def test_gradients_flow_after_a_projection():
    model = network()
    project_(model, MosaicConfig(num_motifs=20))
    model(torch.randn(6, 3, 5, 5)).square().mean().backward()
    assert model.convolution.weight.grad.isfinite().all()


def test_a_backward_pass_through_weights_projected_meanwhile_is_an_error():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    loss = model(torch.ones(1, 3)).sum()
    project_(model, MosaicConfig(num_motifs=2))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_given_motifs_are_neither_changed_nor_shared_nor_followed():
    model, given = network(), nn.Parameter(torch.randn(9, 2))
    copy = given.detach().clone()
    value = project_(model, MosaicConfig(num_motifs=1), motifs=given).mosaic
    assert torch.equal(given, copy)
    assert not value.motifs.requires_grad
    with torch.no_grad():
        given.add_(1)
    assert torch.equal(Mosaic.of(model).motifs, copy)


# Errors, after which the model is as before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("selection", [*SELECTIONS, "given"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_that_are_not_finite_are_named_and_counted(value, selection, dtype):
    motifs = torch.zeros(3, 2) if selection == "given" else None
    selection = "sample" if selection == "given" else selection
    for num_motifs in (1, 3, 500):
        model = network().to(dtype)
        with torch.no_grad():
            model.head.bias[4:7] = value
        before = weights(model)
        config = MosaicConfig(num_motifs=num_motifs, selection=selection)
        message = (
            r"weights must be finite, got 3 of 11 NaN or infinite in parameter 'head\.bias'"
        )
        with pytest.raises(ValueError, match=message):
            project_(model, config, motifs=motifs)
        assert_unchanged(model, before)
        with pytest.raises(ValueError, match="never projected"):
            Mosaic.of(model)


def test_weights_left_out_need_not_be_finite():
    model = network()
    with torch.no_grad():
        model.head.bias[0] = torch.nan
    project_(model, MosaicConfig(num_motifs=9, exclude=("head.bias",)))


@pytest.mark.parametrize("shape", [(5, 3), (5,), (5, 2, 1)])
def test_motifs_of_another_width_are_refused(shape):
    model = network()
    before = weights(model)
    with pytest.raises(ValueError, match=r"motifs must have shape \(k, 2\), got \(5"):
        project_(model, MosaicConfig(num_motifs=9), motifs=torch.zeros(shape))
    assert_unchanged(model, before)


@pytest.mark.parametrize(
    ("motifs", "error", "message"),
    [
        (torch.zeros(0, 2), ValueError, "at least one row"),
        (torch.full((3, 2), torch.nan), ValueError, "motifs must be finite, got 6"),
        (
            torch.zeros(3, 2, dtype=torch.int64),
            TypeError,
            "motifs must be float16.*got.*int64",
        ),
        (
            torch.zeros(3, 2, device="meta"),
            ValueError,
            "must hold values, got a meta tensor",
        ),
    ],
)
def test_motifs_that_cannot_be_used_are_refused(motifs, error, message):
    model = network()
    before = weights(model)
    with pytest.raises(error, match=message):
        project_(model, MosaicConfig(num_motifs=9), motifs=motifs)
    assert_unchanged(model, before)


def test_choosing_no_parameter_names_the_patterns():
    with pytest.raises(ValueError, match=r"got none for include=\('encoder\.\*',\)"):
        project_(network(), MosaicConfig(num_motifs=9, include=("encoder.*",)))


def test_a_model_on_two_devices_is_refused():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2, device="meta"))
    with pytest.raises(ValueError, match=r"on one device, got cpu .* and meta"):
        project_(model, MosaicConfig(num_motifs=9))


def test_a_model_without_values_is_refused():
    with pytest.raises(ValueError, match="'weight' must hold values, got a meta tensor"):
        project_(nn.Linear(3, 2, device="meta"), MosaicConfig(num_motifs=9))


def test_a_weight_is_never_made_infinite():
    """A motif of a wide parameter need not fit into a narrow one."""
    model = nn.ParameterDict(
        {"narrow": torch.full((4,), 65504.0).half(), "wide": torch.full((4,), 70000.0)}
    )
    motifs = torch.tensor([[7e4, 7e4], [6e4, 6e4]])
    with suppress(ValueError):  # refusing is right as well
        project_(model, MosaicConfig(num_motifs=2), motifs=motifs)
    assert model["narrow"].isfinite().all()


# Training


def test_the_papers_sample_loses_motifs_without_training_and_the_distinct_does_not():
    used = {}
    for selection in ("sample", "distinct"):
        torch.manual_seed(0)
        model = nn.Linear(64, 64, bias=False)
        config = MosaicConfig(block_size=2, num_motifs=256, selection=selection)
        projector = Projector(model, config)
        used[selection] = [
            int((projector.project().mosaic.usage() > 0).sum()) for _ in range(12)
        ]
    assert used["sample"][-1] < used["sample"][0] / 2
    assert set(used["distinct"]) == {256}


@given(every=st.integers(1, 5), steps=st.integers(0, 17))
def test_a_projector_projects_at_every_nth_step(every, steps):
    projector = Projector(nn.Linear(3, 2), MosaicConfig(num_motifs=3), every=every)
    done = [projector.step() is not None for _ in range(steps)]
    assert done == [(step + 1) % every == 0 for step in range(steps)]
    assert projector.steps == steps


def test_a_projector_draws_anew_each_time():
    model = network()
    projector = Projector(model, MosaicConfig(num_motifs=9, selection="distinct"))
    before = weights(model)
    first = projector.project().mosaic.motifs
    model.load_state_dict(before, strict=False)
    assert not torch.equal(projector.project().mosaic.motifs, first)


def test_projecting_out_of_turn_does_not_count_as_a_step():
    projector = Projector(network(), MosaicConfig(num_motifs=9), every=3)
    projector.step()
    projector.project()
    assert projector.steps == 1
    assert [projector.step() is None for _ in range(3)] == [True, False, True]


@pytest.mark.parametrize("every", [0, -2])
def test_a_projector_projects_at_least_now_and_then(every):
    with pytest.raises(ValueError, match=f"every must be at least 1, got {every}"):
        Projector(network(), MosaicConfig(num_motifs=9), every=every)


@pytest.mark.parametrize("every", [1.5, True, "1"])
def test_a_projector_counts_whole_steps(every):
    with pytest.raises(TypeError, match=f"every must be an int, got {every!r}"):
        Projector(network(), MosaicConfig(num_motifs=9), every=every)


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_run_resumed_from_a_file_is_the_run_that_was_not_interrupted(
    tmp_path, selection, stop
):
    def start(seed: int) -> tuple[Network, torch.optim.Optimizer, Projector]:
        model = network(seed)
        config = MosaicConfig(num_motifs=12, selection=selection, seed=3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return model, optimizer, Projector(model, config, every=2)

    def train(
        model: Network, optimizer: torch.optim.Optimizer, projector: Projector, steps: range
    ) -> list[Tensor]:
        banks = []
        for step in steps:
            x = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
            if projection := projector.step():
                banks.append(projection.mosaic.motifs)
        return banks

    whole = start(0)
    expected = train(*whole, range(8))
    parts = start(0)
    banks = train(*parts, range(stop))
    torch.save([part.state_dict() for part in parts], tmp_path / "run.pt")
    resumed = start(1)  # of another model and a projector that has drawn already
    resumed[2].project()
    for part, state in zip(
        resumed, torch.load(tmp_path / "run.pt", weights_only=True), strict=True
    ):
        part.load_state_dict(state)
    banks += train(*resumed, range(stop, 8))
    assert len(banks) == len(expected) == 4
    for bank, other in zip(banks, expected, strict=True):
        assert torch.equal(bank, other)
    assert_unchanged(resumed[0], weights(whole[0]))


def test_the_state_of_a_projector_is_a_copy():
    projector = Projector(network(), MosaicConfig(num_motifs=9))
    state = projector.state_dict()
    first = deepcopy(state)
    projector.step()
    assert state["steps"] == first["steps"] == 0
    assert torch.equal(state["generator"], first["generator"])


@pytest.mark.parametrize("how", [deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_projector_that_is_copied_or_pickled_draws_on_by_itself(how):
    config = MosaicConfig(num_motifs=9, selection="distinct")
    projector = Projector(network(), config, every=2)
    projector.step()
    twin = how(projector)
    assert (twin.steps, twin.every, twin.config) == (1, 2, config)
    assert_unchanged(twin.model, weights(projector.model))
    before = weights(projector.model)
    first = twin.step().mosaic.motifs
    assert_unchanged(projector.model, before)
    assert torch.equal(first, projector.step().mosaic.motifs)


def test_distinct_motifs_are_those_of_the_blocks_read():
    """`project_` and the functions it is made of draw the same."""
    model = network()
    read = Layout.of(model, block_size=2, min_ndim=1).read(model)
    expected = distinct_motifs(read, 9, generator=torch.Generator().manual_seed(6))
    config = MosaicConfig(num_motifs=9, selection="distinct", seed=6)
    assert torch.equal(project_(model, config).mosaic.motifs, expected)


def test_indices_of_sixteen_unsigned_bits_project_and_settle():
    g = torch.Generator().manual_seed(0)
    model = nn.ParameterDict(
        {"odd": torch.randn(90_001, generator=g), "narrow": torch.randn(3).half()}
    )
    config = MosaicConfig(block_size=2, num_motifs=40_000)
    mosaic = project_(model, config).mosaic
    assert mosaic.indices.dtype == torch.uint16
    assert project_(model, config, motifs=mosaic.motifs).moved == 0
    Mosaic.of(model)


def test_memory_of_weights_can_still_be_resized() -> None:
    """As FSDP does with weights that it has gathered."""
    model = nn.Linear(8, 8)
    project_(model, MosaicConfig(block_size=2, num_motifs=4))
    storage = model.weight.untyped_storage()
    assert storage.resizable()
    storage.resize_(0)
    assert storage.nbytes() == 0


@pytest.mark.parametrize("stride", [1, 2])
def test_strided_weights_are_projected_in_place(stride: int) -> None:
    model, plain = nn.Linear(4, 6), nn.Linear(4, 6)
    plain.load_state_dict(model.state_dict())
    held = torch.empty(6 * stride)
    held[::stride] = model.bias.detach()
    model.bias = nn.Parameter(held[::stride])
    config = MosaicConfig(block_size=2, num_motifs=3)
    project_(model, config)
    project_(plain, config)
    assert torch.equal(model.bias, plain.bias)
    assert torch.equal(held[::stride], plain.bias)
