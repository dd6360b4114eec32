"""The command line as tests call it: within the process, on a screen of a known width."""

from pathlib import Path
from unittest.mock import patch

from typer import rich_utils
from typer.testing import CliRunner, Result

from momos.cli import app

WIDE = 500  # columns, so that no path, however long, breaks a line of a message


def invoke(*arguments: str | Path, columns: int = WIDE) -> Result:
    """`momos` with these arguments."""
    environment = {"COLUMNS": str(columns), "TERM": "dumb", "NO_COLOR": "1"}
    # Typer reads the width once, when it is imported: by whichever test was first.
    with patch.object(rich_utils, "MAX_WIDTH", columns):
        return CliRunner().invoke(app, [str(word) for word in arguments], env=environment)
