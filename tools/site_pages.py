"""Sphinx extension of the site: links out of docs/, the command line's page, and public names.

Pages of docs/ are also read on forges, where links to files elsewhere in the repository work. In
the site such a link leads to the page that includes the file.
"""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer
from docutils import nodes
from public_names import public_names, undocumented
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from momos.cli import app as momos_command

LOGGER = logging.getLogger(__name__)
PAGES = {  # of files elsewhere in the repository, and folders
    "bench/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "results/study": "results/study/all-runs.csv",
}


def redirected(text: str, up: str) -> str:
    """`text` with its links to files of the repository leading to pages of the site.

    `up` is the way from the page to docs/, "" or "../" repeated.
    """
    for file, page in PAGES.items():
        there = f"{up}{file}" if file.startswith("results") else f"{up}../{file}"
        pattern = rf"\]\({re.escape(there)}(#[^)]*)?\)"
        text = re.sub(
            pattern, lambda found, page=page: f"]({up}{page}{found[1] or ''})", text
        )
    return text


def _redirect(_: Sphinx, docname: str, source: list[str]) -> None:
    source[0] = redirected(source[0], "../" * docname.count("/"))


class CommandLine(SphinxDirective):
    """`{momos-commands}`: a section for each command, with its options, from the command itself."""

    def run(self) -> list[nodes.Node]:
        text = "\n".join(command_lines())
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def command_lines() -> Iterator[str]:
    """Markdown of all commands: usage, help, arguments and options."""
    command: Any = typer.main.get_command(momos_command)
    for path, one in _leaves(command, ("momos",)):
        context = one.make_context(path[-1], [], resilient_parsing=True)
        arguments = [p for p in one.params if p.param_type_name == "argument"]
        options = [p for p in one.params if p.param_type_name == "option" and not p.hidden]
        words = [*path, *("[OPTIONS]" for _ in options[:1])]
        words += [argument.display_name_raw for argument in arguments]
        yield from (f"## {' '.join(path)}", "", "```text", " ".join(words), "```", "")
        yield from (inspect.cleandoc(one.help or "").replace("\f", ""), "")
        yield from _table("argument", arguments, context)
        yield from _table("option", options, context)


def _leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, one in command.commands.items():
        if hasattr(one, "commands"):
            yield from _leaves(one, (*path, name))
        else:
            yield (*path, name), one


def _table(title: str, parameters: list[Any], context: Any) -> Iterator[str]:
    rows = [_row(parameter, context) for parameter in parameters]
    if rows:
        yield from (f"| {title} | meaning |", "|---|---|", *rows, "")


def _row(parameter: Any, context: Any) -> str:
    if parameter.param_type_name == "argument":
        name = parameter.display_name_raw
    else:
        name = ", ".join([*parameter.opts, *parameter.secondary_opts])
        if not parameter.is_flag:
            name += f" {parameter.display_type_rich(context)}"
    help_text = " ".join((parameter.help or "").split())
    default = parameter.default
    if default not in (None, False, True, ()) and not callable(default):
        shown = (
            ", ".join(map(str, default)) if isinstance(default, tuple | list) else default
        )
        help_text += f" Default: {shown}."
    cells = (f"`{name}`", help_text)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _check_public_names(app: Sphinx, environment: BuildEnvironment) -> None:
    """Warns, which fails the strict build, of public names without a page or without words."""
    described = environment.domains["py"].objects  # type: ignore[attr-defined]
    for name, value in public_names().items():
        if name not in described:
            LOGGER.warning("public name %s must have an entry in docs/reference", name)
        for what in undocumented(name, value):
            LOGGER.warning("public name %s must have a docstring", what)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_lexer("dictionary", TextLexer)  # as docs/format.md names what is no language
    app.add_directive("momos-commands", CommandLine)
    app.connect("source-read", _redirect)
    app.connect("env-check-consistency", _check_public_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
