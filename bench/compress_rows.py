"""Measured rows, kept in a file of JSON lines so that nothing is measured twice."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One network, made small in one way, and what it still does (compress_networks.Quality)."""

    network: str
    data: str  # digest of weights and inputs
    method: str
    setting: str
    version: str  # of the method
    dense_bytes: int
    num_inputs: int
    num_bytes: int
    seconds: float  # to compress, one thread
    accuracy: float | None
    changed: float
    divergence: float

    @property
    def factor(self) -> float:
        return self.dense_bytes / self.num_bytes


class Rows:
    """The rows of a file; the file need not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.found = {_key(row): row for row in (Row(**json.loads(line)) for line in lines)}

    def get(
        self, network: str, data: str, method: str, setting: str, version: str
    ) -> Row | None:
        return self.found.get((network, data, method, setting, version))

    def add(self, row: Row) -> None:
        self.found[_key(row)] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a") as file:
            file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")


def _key(row: Row) -> tuple[str, ...]:
    return row.network, row.data, row.method, row.setting, row.version
