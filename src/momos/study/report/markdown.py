"""Tables in Markdown, and the places in a page that they are written to.

A place is what stands between the lines `<!-- generated: NAME -->` and `<!-- end -->`.
"""

import re
from collections.abc import Mapping, Sequence

from momos._util.escaping import visible

PLACE = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    """A table, whose first `left` columns are text and whose others are numbers."""
    marks = ["---"] * left + ["---:"] * (len(header) - left)
    cells = ([visible(cell).replace("|", "\\|") for cell in row] for row in (header, *rows))
    first, *others = (f"| {' | '.join(row)} |\n" for row in cells)
    return "".join([first, f"| {' | '.join(marks)} |\n", *others])


def fill(page: str, parts: Mapping[str, str]) -> str:
    """The page with every part at its place, and everything else as it was.

    Raises:
        ValueError: if a part has no place, or a place no part or more than one place.
    """
    places = [match[2] for match in PLACE.finditer(page)]
    if sorted(places) != sorted(parts):
        raise ValueError(
            f"the page must have one place for each of {', '.join(sorted(parts))}, "
            f"got {', '.join(sorted(places)) or 'none'}"
        )
    return PLACE.sub(lambda match: f"{match[1]}\n{parts[match[2]]}\n{match[3]}", page)
