"""Checks a built site: `python tools/site_links.py build/site`.

Every link into the site must lead to a file, and to an anchor of it; nothing that a page shows may
come from elsewhere, so that the site works from a disk without a network. Links to other
sites are not followed.
"""

import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SHOWN = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
LOADED = {"stylesheet", "icon", "preload"}  # kinds of <link> that a browser fetches


class Page(HTMLParser):
    """The anchors of a page, where its links lead, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = {"", "top"}
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        fetched = tag != "link" or LOADED & set(values.get("rel", "").split())
        if fetched and (target := values.get(SHOWN.get(tag, ""))):
            self.loaded.append(target)


@cache
def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def faults(folder: Path) -> Iterator[str]:
    """What is wrong with the links of the pages in `folder`, a line for each."""
    for path in sorted(folder.rglob("*.html")):
        name = path.relative_to(folder)
        for target in page(path).loaded:
            if urlsplit(target).scheme not in ("", "data") or target.startswith("//"):
                yield f"{name}: must load nothing from elsewhere, got {target}"
            elif why := _wrong(path, target):
                yield f"{name}: {why}"
        for target in page(path).links:
            if why := _wrong(path, target):
                yield f"{name}: {why}"


def _wrong(path: Path, target: str) -> str:
    """Why a link of the page at `path` leads nowhere; empty if it leads somewhere."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return ""
    there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not there.is_file():
        return f"link must lead to a file of the site, got {target}"
    anchor = unquote(parts.fragment)
    if there.suffix == ".html" and anchor not in page(there).anchors:
        return f"link must lead to an anchor of {there.name}, got #{anchor}"
    return ""


def main(folder: str) -> int:
    if not any(Path(folder).glob("*.html")):
        print(f"folder must hold a built site, got {folder}", file=sys.stderr)
        return 1
    found = list(faults(Path(folder)))
    print("\n".join(found) or f"{folder}: all links lead somewhere", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
