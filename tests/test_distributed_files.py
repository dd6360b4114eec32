"""Files of sharded models: the bytes of the whole model's, and each rank takes its part."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import run
from test_distributed import (
    all_indices,
    big,
    fsdp,
    hybrid,
    nested,
    network,
    same_bits,
    tensor_parallel,
    two_dimensional,
    whole,
    wide,
)
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import momos

CONFIG = momos.MosaicConfig(block_size=2, num_motifs=10, selection="distinct")


def with_buffers() -> nn.Sequential:
    model = network()
    model.append(nn.BatchNorm1d(1))
    model[0].weight.data[1] = 3.0
    model[2].bias.requires_grad_(False)
    return model


def files(rank: int, folder: str) -> None:
    size = dist.get_world_size()
    spreads = [(with_buffers, fsdp), (with_buffers, nested)]
    spreads += [(wide, hybrid), (wide, two_dimensional)] if size == 4 else []
    spreads += [(wide, tensor_parallel)] if size == 2 else []
    for make, spread in spreads:
        plain, model = make(), spread(make())
        momos.project_(plain, CONFIG)
        mosaic = momos.project_(model, CONFIG).mosaic
        expected, path = Path(folder, f"plain{rank}"), Path(folder, "sharded")
        momos.save(plain, expected)
        report = momos.save(model, path)
        assert report.path == path
        assert path.read_bytes() == expected.read_bytes(), spread.__name__
        assert report.lengths == momos.description_length(mosaic)
        dist.barrier()
        momos.save(mosaic, path)
        momos.save(plain_mosaic(plain), expected)
        assert path.read_bytes() == expected.read_bytes(), spread.__name__
        momos.save(model, path)
        loaded(make, spread, path, plain)


def plain_mosaic(model: nn.Module) -> momos.Mosaic:
    return momos.Mosaic.of(model)


def loaded(make, spread, path: Path, plain: nn.Module) -> None:
    torch.manual_seed(9)
    other = spread(make())
    with torch.no_grad():
        for tensor in other.parameters():
            tensor.mul_(0)
    checkpoint = momos.load_(other, path)
    weights = dict(plain.named_parameters())
    for name, tensor in whole(other).items():
        assert same_bits(tensor.detach(), weights[name].detach()), name
    mosaic = momos.Mosaic.of(other)
    assert mosaic is checkpoint.mosaic
    assert torch.equal(all_indices(mosaic), momos.Mosaic.of(plain).indices.long())
    dist.barrier()


def memory(rank: int, folder: str) -> None:
    """Saves and loads while the largest tensor that ranks exchange is measured."""
    sent: list[int] = []
    reduce = dist.all_reduce

    def counted(tensor, *arguments, **options):
        sent.append(tensor.nbytes)
        return reduce(tensor, *arguments, **options)

    dist.all_reduce = counted
    model, path = fsdp(big()), Path(folder, "big")
    largest = max(p.nbytes for p in big().parameters())
    momos.project_(model, momos.MosaicConfig(block_size=4, num_motifs=64, exclude=("2.*",)))
    sent.clear()
    report = momos.save(model, path)
    assert max(sent) == largest  # a dense one; of blocks only indices travel
    assert (
        sum(sent) < 1.25 * report.dense_bytes / 2
    )  # those, an eighth as long, more than once
    sent.clear()
    momos.load_(model, path)
    assert max(sent) < 0.1 * largest


def replicas(rank: int, folder: str) -> None:
    plain, path, expected = with_buffers(), Path(folder, "ddp"), Path(folder, f"one{rank}")
    model = DistributedDataParallel(with_buffers())
    momos.project_(plain, CONFIG)
    found = momos.project_(model, CONFIG, generator=torch.Generator().manual_seed(rank))
    if rank == 0:
        assert torch.equal(found.mosaic.motifs, momos.Mosaic.of(plain).motifs)
    momos.save(plain, expected)
    momos.save(model, path)
    assert path.read_bytes() == Path(folder, "one0").read_bytes()
    other = DistributedDataParallel(with_buffers())
    momos.load_(other, path)
    assert same_bits(other.module[0].weight.data, plain[0].weight.data)
    assert momos.Mosaic.of(other.module).num_motifs == found.mosaic.num_motifs


def failures(rank: int, folder: str) -> None:
    model = fsdp(network())
    momos.project_(model, CONFIG)
    with pytest.raises(FileNotFoundError, match="no_folder"):
        momos.save(model, Path(folder, "no_folder", "net"))
    path = Path(folder, "net")
    momos.save(model, path)
    with torch.no_grad():  # on one rank only
        model[0].weight.to_local()[:1].add_(1.0 if rank == 0 else 0.0)
    before = path.read_bytes()
    with pytest.raises(
        ValueError,
        match=r"parameter '0\.weight' differs from its motifs in 7 weights \(first in its "
        r"block 0\)",
    ):
        momos.save(model, path)
    assert path.read_bytes() == before
    if rank == 1:
        path = Path(folder, "damaged")
        path.write_bytes(before[:-40] + bytes(40))
    with pytest.raises(momos.FormatError):
        momos.load_(model, path)
    other = fsdp(wide())
    with pytest.raises(ValueError, match="of another shape or kind"):
        momos.load_(other, Path(folder, "net"))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_file_of_a_sharded_model_is_that_of_the_whole_one(size, tmp_path):
    run(files, size, str(tmp_path))


def test_no_more_than_one_whole_tensor_is_gathered_at_a_time(tmp_path):
    run(memory, 2, str(tmp_path))


def test_replicas_are_saved_once_under_the_names_of_the_network(tmp_path):
    run(replicas, 2, str(tmp_path))


def test_what_one_rank_cannot_do_is_an_error_on_all(tmp_path):
    run(failures, 2, str(tmp_path))
