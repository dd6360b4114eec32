"""Triton kernels without a GPU: in the interpreter, or compiled for devices that are not there.

The interpreter has to be switched on before Triton is first imported, which torch may have done
long ago, so a test file runs itself as a script.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def run(
    script: str, task: str, names: Iterable[str], cache: Path, **environment: str
) -> dict[str, Any]:
    """What a test file prints as a script: its results of a task, by name."""
    environment |= {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "TRITON_CACHE_DIR": str(cache),
        "TRITON_INTERPRET": str(int(task == "interpret")),
    }
    process = subprocess.run(
        [sys.executable, script, task, *names],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def compiled(
    kernel: Any,
    types: list[str],
    constants: dict[str, Any],
    *,
    target: int,
    aligned: int = 0,
    **options: Any,
) -> Any:
    """A kernel for a device of compute capability `target`; its first pointers are `aligned`."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    types = types + ["constexpr"] * (len(names) - len(types))
    attributes = {(i,): [["tt.divisibility", 16]] for i in range(aligned)}
    source = ASTSource(kernel, dict(zip(names, types, strict=True)), constants, attributes)
    return triton.compile(source, GPUTarget("cuda", target, 32), options)
