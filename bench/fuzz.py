"""Mutants of small files: every one must be refused, or loaded as what it says.

tests/mutants.py makes them; `python bench/fuzz.py 1000000 7` tries a million others than those
of seed 0. What is neither refused nor loaded, or takes more memory than its size allows, is listed
by its number, so that it can be made again.
"""

import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from measure import table

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

import memory as counting  # noqa: E402
from mutants import LOADED, REFUSED, mutant, outcome  # noqa: E402

GOLDEN = TESTS / "files" / "golden" / "v1"
BATCH = 500
LISTED = 20  # faults of one kind


def outcomes(seeds: range) -> list[tuple[int, str]]:
    files = [path.read_bytes() for path in sorted(GOLDEN.glob("*.momos"))]
    with tempfile.TemporaryDirectory(dir=memory()) as folder:
        path = Path(folder) / "mutant.momos"
        found = (
            (seed, outcome(mutant(files, seed), path, measured=counting.COUNTED))
            for seed in seeds
        )
        return [(seed, result.replace(str(path), "…")) for seed, result in found]


def memory() -> str | None:
    """A folder that is no disk, if there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    first = int(sys.argv[2]) * 10**9 if len(sys.argv) > 2 else 0
    stop = first + number
    batches = [range(at, min(at + BATCH, stop)) for at in range(first, stop, BATCH)]
    counts: Counter[str] = Counter()
    start = time.perf_counter()
    with ProcessPoolExecutor() as pool:
        for batch in pool.map(outcomes, batches):
            for seed, result in batch:
                counts[result] += 1
                if result not in (LOADED, REFUSED) and counts[result] <= LISTED:
                    print(f"mutant {seed}: {result}", file=sys.stderr, flush=True)
    taken = time.perf_counter() - start
    refused, loaded = counts[REFUSED], counts[LOADED]
    header = ["mutants", "refused", "loaded", "other errors", "seconds"]
    faults = number - refused - loaded
    table(header, [[*map(str, (number, refused, loaded, faults)), f"{taken:.0f}"]])
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
