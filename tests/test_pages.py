"""What pages of docs/ say that can be checked: their Python runs, and the tests they name exist."""

import logging
import re
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
STATUS = DOCS / "status.md"


def blocks() -> list[tuple[str, str]]:
    return [
        (f"{page.name}, block {number}", block)
        for page in sorted((DOCS / "howto").glob("*.md"))
        for number, block in enumerate(
            re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL), start=1
        )
    ]


@pytest.mark.parametrize(("where", "block"), blocks())
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")
def test_a_block_of_a_how_to_runs(
    where: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # for what it saves
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        exec(compile(block, where, "exec"), {"__name__": "__main__"})


def test_the_tests_that_the_status_page_names_exist() -> None:
    named = re.findall(r"`tests/(\w+\.py)::(\w+)`", STATUS.read_text())
    assert named
    for file, test in named:
        text = (ROOT / "tests" / file).read_text()
        assert f"def {test}(" in text, f"{file}::{test}"


def test_every_link_between_pages_leads_to_a_file() -> None:
    """As a forge shows them; the site's own links are checked when it is built."""
    for page in DOCS.rglob("*.md"):
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_messages_that_the_page_of_errors_explains_are_in_the_source() -> None:
    literal = re.compile(r'f?"((?:[^"\\]|\\.)*)"\s*')
    words = "".join(
        "".join(literal.findall(path.read_text()))
        for path in sorted((ROOT / "src" / "momos").rglob("*.py"))
    )
    messages = re.findall(
        r"^\| `(.+?)` \|", (DOCS / "reference/errors.md").read_text(), re.M
    )
    assert messages
    assert [message for message in messages if message not in words] == []
