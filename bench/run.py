"""Runs every benchmark here and writes their tables to README.md, with machine and commit."""

import subprocess
import sys
from pathlib import Path

from measure import machine

HERE = Path(__file__).parent
SCRIPTS = (
    *("assign", "assign_sizes", "engines", "scale", "step", "kmeans"),
    *("files", "order", "codec", "streaming", "fuzz"),
)


def main() -> None:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True
    ).stdout.strip()
    parts = [
        "# Benchmarks\n\n`make bench` runs them all and writes this page. Every ratio is of times "
        f"taken in one run, in turn.\n\nLast run: {machine()}; commit {commit}.\n"
    ]
    for name in SCRIPTS:
        script = HERE / f"{name}.py"
        purpose = script.read_text().split('"""')[1].strip()
        print(f"{name} …", flush=True)
        done = subprocess.run([sys.executable, script], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stderr}")
        print(done.stdout)
        parts.append(f"## {name}.py\n\n{purpose}\n\n{done.stdout}")
    (HERE / "README.md").write_text("\n".join(parts))


if __name__ == "__main__":
    main()
