"""Rewrites recipes that run folders name as text to values: `python tools/upgrade_runs.py RUNS…`.

`cell.json` once said "recipe": "simplify(task='digits', seeds=5)". Such folders can be read, but
pages of results cannot tell which cells their recipe asked for.
"""

import ast
import json
import sys
from pathlib import Path

from momos.study.recipes import RECIPES
from momos.study.store import CELL, Asked, run_folders, write_json
from page_parts import recipe_of


def asked(text: str) -> Asked | None:
    """The recipe of a text; None if it is of none, or of none of today's."""
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            return None
        settings = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
        found: Asked = {"name": call.func.id, "settings": json.loads(json.dumps(settings))}
        return found if found["name"] in RECIPES and recipe_of(found) else None
    except (SyntaxError, TypeError, ValueError):
        return None


def upgrade(folder: Path) -> bool:
    """Rewrites `cell.json` of a run folder; whether there was something to rewrite."""
    described = json.loads((folder / CELL).read_text("utf-8"))
    found = asked(described["recipe"]) if isinstance(described["recipe"], str) else None
    if found is not None:
        write_json(folder / CELL, described | {"recipe": found})
    return found is not None


if __name__ == "__main__":
    done = [
        upgrade(folder) for place in sys.argv[1:] for folder in run_folders(Path(place))
    ]
    print(f"{sum(done)} of {len(done)} run folders rewritten")
