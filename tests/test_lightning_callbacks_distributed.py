"""The Lightning callbacks where several processes train: `ddp` and `fsdp2`."""

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from processes import run
from torch import Tensor, nn

import momos
from momos.integrations.lightning import LearnedMosaicCallback, MosaicCallback

RANKS = 2
LEARNED = momos.MosaicConfig.learned(num_motifs=12, rate_weight=0.2)
KINDS: dict[str, Any] = {
    "projected": lambda: MosaicCallback(momos.MosaicConfig(block_size=2, num_motifs=5)),
    "projected each step": lambda: MosaicCallback(
        momos.MosaicConfig(block_size=2, num_motifs=5, selection="kmeans"), every="step"
    ),
    "weights": lambda: LearnedMosaicCallback(LEARNED, every=2, dense=0.2),
    "motifs": lambda: LearnedMosaicCallback(LEARNED, "motifs"),
    "whole": lambda: LearnedMosaicCallback(
        momos.MosaicConfig.learned(selection="whole", rate_weight=1e-4)
    ),
}


class Module(L.LightningModule):
    def __init__(self, *, shard: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4))
        self.shard, self.seen = shard, 0

    def configure_model(self) -> None:
        from torch.distributed.fsdp import fully_shard

        if self.shard and not type(self.net).__name__.startswith("FSDP"):
            mesh = self.device_mesh["data_parallel"]  # type: ignore[index]
            fully_shard(self.net[0], mesh=mesh)
            fully_shard(self, mesh=mesh)

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs)

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        self.log("val", self.training_step(batch, 0), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        inputs = torch.randn(48, 6, generator=torch.Generator().manual_seed(1))
        data = torch.utils.data.TensorDataset(inputs, inputs.argmax(1) // 2)
        return torch.utils.data.DataLoader(data, batch_size=6)

    val_dataloader = train_dataloader


class Started(LightningEnvironment):
    """An environment in which the processes run already, as the group of `processes.run`."""

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.set_global_rank(rank)
        self.set_world_size(RANKS)
        self._number = rank

    def local_rank(self) -> int:
        return self._number

    def global_rank(self) -> int:
        return self._number


def trainer(rank: int, strategy: Any, callbacks: list[Any], **settings: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        devices=RANKS,
        strategy=strategy(process_group_backend="gloo"),
        plugins=[Started(rank)],
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 2, "enable_checkpointing": False} | settings,
    )


def fitted(rank: int, strategy: Any, names: list[str], folder: str) -> None:
    warnings.simplefilter("ignore")  # of Lightning, about few workers and the like
    for name in names:
        module = Module(shard=strategy is ModelParallelStrategy)
        trainer(rank, strategy, [KINDS[name]()]).fit(module)
        mosaic = momos.Mosaic.of(module.net)
        assert int(mosaic.usage().sum()) == mosaic.layout.num_blocks
        momos.save(module.net, Path(folder) / f"{name} {rank}.momos")


def test_replicas_end_with_one_mosaic(tmp_path: Path):
    run(fitted, RANKS, DDPStrategy, list(KINDS), str(tmp_path))
    for name in KINDS:
        one, two = (tmp_path / f"{name} {rank}.momos" for rank in range(RANKS))
        assert one.read_bytes() == two.read_bytes(), name


def test_shards_end_with_a_mosaic(tmp_path: Path):
    run(fitted, RANKS, ModelParallelStrategy, list(KINDS)[:3], str(tmp_path))
