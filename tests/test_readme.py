"""Every Python block of the README, and of the page on learned motifs, runs as it stands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README, LEARNING = ROOT / "README.md", ROOT / "docs" / "learning.md"


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


BLOCKS = blocks(README)
LOOP = next(block for block in BLOCKS if "Projector" in block)


@pytest.mark.parametrize("block", BLOCKS + blocks(LEARNING))
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")
def test_readme_block_runs(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # for what it saves
    exec(compile(block, str(README), "exec"), {})


def test_readme_has_blocks() -> None:
    assert len(BLOCKS) >= 3


def test_the_loop_example_is_twelve_lines() -> None:
    lines = [line for line in LOOP.splitlines() if line.strip()]
    assert len(lines) <= 12


def test_the_readme_is_short_and_what_it_shows_is_there() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (ROOT / target).exists(), target
