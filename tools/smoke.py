"""Checks an installed momos, needing nothing but it: `python tools/smoke.py`.

It compiles nothing, so it shows that a wheel brought working engines.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

import momos


def main() -> None:
    blocks, motifs = torch.randn(1000, 4), torch.randn(64, 4)
    exact = torch.equal(
        momos.nearest(blocks, motifs), momos.nearest_reference(blocks, motifs)
    )
    assert exact, "nearest must be what its definition says"
    with TemporaryDirectory() as folder:
        path = Path(folder) / "net.momos"
        report = momos.compress(nn.Linear(256, 256), path)
        momos.load_(nn.Linear(256, 256), path)
        command = [sys.executable, "-m", "momos.cli", "verify", str(path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    where = Path(momos.__file__).parent
    print(f"momos {momos.__version__} at {where} works: {report.factor:.1f} times smaller")


if __name__ == "__main__":
    main()
