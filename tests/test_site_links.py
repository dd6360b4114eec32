"""The check of the site's links finds what a reader would stumble over."""

from pathlib import Path

import pytest
import site_links


def site(folder: Path, body: str) -> list[str]:
    (folder / "other.html").write_text('<h2 id="part">Part</h2>')
    (folder / "index.html").write_text(body)
    site_links.page.cache_clear()
    return list(site_links.faults(folder))


@pytest.mark.parametrize(
    "body",
    [
        '<a href="other.html#part">a</a>',
        '<a href="https://example.org/nothing">not followed</a>',
        '<p id="here"></p><a href="#here">a</a>',
        '<link rel="search" href="https://example.org/"><img src="data:,">',
    ],
)
def test_links_that_lead_somewhere(tmp_path: Path, body: str) -> None:
    assert site(tmp_path, body) == []


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<a href="none.html">', "link must lead to a file of the site, got none.html"),
        ('<a href="other.html#no">', "link must lead to an anchor of other.html, got #no"),
        ('<img src="no.png">', "link must lead to a file of the site, got no.png"),
        (
            '<script src="https://cdn.example.org/a.js"></script>',
            "must load nothing from elsewhere, got https://cdn.example.org/a.js",
        ),
    ],
)
def test_links_that_lead_nowhere(tmp_path: Path, body: str, fault: str) -> None:
    assert site(tmp_path, body) == [f"index.html: {fault}"]


def test_a_folder_without_a_site(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert site_links.main(str(tmp_path)) == 1
    assert capsys.readouterr().err.startswith("folder must hold a built site, got ")
