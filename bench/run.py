"""Runs the benchmarks here and writes their tables to README.md, with machine and commit.

With names, as `run.py files codec`, only those are run and the other tables stay. Those in `LONG`
are run only by name.
"""

import re
import subprocess
import sys
from pathlib import Path

from measure import machine

HERE = Path(__file__).parent
SCRIPTS = (
    *(
        "assign",
        "assign_sizes",
        "engines",
        "scale",
        "parameters",
        "step",
        "load",
        "kmeans",
        "gather",
        "compact",
        "running",
        "learning",
    ),
    "precision",
    *(
        "files",
        "compress",
        "throughput",
        "order",
        "codec",
        "streaming",
        "strided",
        "fuzz",
        "measures",
        "bdm",
    ),
)
LONG = ("compress_all", "device")  # run only when they are named
HEAD = (
    "# Benchmarks\n\n`make bench` runs them all, but for compress_all.py and device.py, and writes this page; "
    "`python bench/run.py NAMES`\nruns some. Every ratio is of times taken in one run, in turn.\n"
)


def main() -> None:
    wanted = sys.argv[1:] or SCRIPTS
    known = (*SCRIPTS, *LONG)
    if unknown := set(wanted) - set(known):
        sys.exit(f"benchmarks must be among {', '.join(known)}, got {', '.join(unknown)}")
    page = HERE / "README.md"
    sections = re.split(r"^(?=## )", page.read_text(), flags=re.M)[1:]
    tables = {section.split(".py")[0].removeprefix("## "): section for section in sections}
    for name in wanted:
        print(f"{name} …", flush=True)
        tables[name] = run(name)
        page.write_text(
            "\n".join([HEAD, *(tables[n].strip() + "\n" for n in known if n in tables)])
        )


def run(name: str) -> str:
    """The section of one script."""
    script = HERE / f"{name}.py"
    purpose = script.read_text().split('"""')[1].strip()
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    print(done.stdout)
    return f"## {name}.py\n\n{purpose}\n\n{done.stdout}\n{machine()}; commit {commit()}.\n"


def commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
