"""The CUDA kernels agree with the definition, in Triton's interpreter.

It has to be switched on before Triton is first imported, so the cases run in another process: this
file as a script.
"""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from momos.compact.bitpack import pack

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


def cases() -> None:
    from momos.compact import cuda

    generator = torch.Generator().manual_seed(0)
    for size, num_motifs in ((4, 256), (8, 200), (1, 17), (2, 33)):
        for num_inputs, num_rows, blocks in (
            (1, 70, 65),
            (1, 32, 64),
            (3, 40, 20),
            (17, 33, 9),
        ):
            width = blocks * size
            motifs = torch.randn(num_motifs, size, generator=generator)
            indices = torch.randint(num_motifs, (num_rows * blocks,), generator=generator)
            inputs = torch.randn(num_inputs, width, generator=generator)
            found = cuda.product(inputs, motifs, pack(indices, 8), num_rows)
            weight = motifs[indices].view(num_rows, width).double()
            wanted = inputs.double() @ weight.T
            bound = inputs.double().abs() @ weight.abs().T * width * 2**-23
            assert bool(((found - wanted).abs() <= bound).all()), (size, num_inputs)
    wrong = torch.full((4 * 4,), 255, dtype=torch.uint8)  # reads no motif that is not there
    assert not cuda.product(torch.ones(1, 16), torch.ones(9, 4), wrong, 4).any()
    for motifs, width in ((torch.ones(9, 3), 12), (torch.ones(9, 4), 14)):
        with pytest.raises(ValueError, match="must be whole blocks of a power of two"):
            cuda.product(torch.ones(1, width), motifs, wrong, 4)


@needs_triton
def test_the_kernels_agree_with_the_definition():
    done = subprocess.run(
        [sys.executable, __file__],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


if __name__ == "__main__":
    cases()
