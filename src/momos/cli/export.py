"""`momos export`: a .momos file as an ONNX file."""

from pathlib import Path
from typing import Annotated, Any

import typer
from torch import nn
from torch.onnx import OnnxExporterError

import momos
from momos._util.atomic import refuse_same
from momos.checkpoints.search import check_writable
from momos.cli.compress import function_named, integration
from momos.cli.terminal import reported, say


def export(
    source: Annotated[
        Path, typer.Argument(metavar="NETWORK.momos", help="File with the weights.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT.onnx", help="File to write.")],
    network: Annotated[
        str,
        typer.Option(
            metavar="FILE.py:FUNCTION",
            help="Returns the network, an nn.Module, and a tuple of example inputs; or "
            "module:function.",
        ),
    ],
) -> None:
    """Write a network for ONNX runtimes, as motifs and packed indices that the graph decodes.

    Shapes are those of the example inputs; momos.integrations.onnx.export has them dynamic.
    """
    with reported():
        onnx = integration("onnx")
        refuse_same([source], output)
        check_writable(output)
        with function_named(network) as function:
            model, inputs = _checked(function(), network)
        momos.load_(model, source)
        try:
            dense = onnx.export(model.eval(), inputs, output)
        except OnnxExporterError as error:
            why = str(error.__cause__ or error).strip().partition("\n")[0]
            raise ValueError(f"torch.onnx cannot export {network}: {why}") from None
        for name, why in dense.items():
            say(f"momos: {name} stays dense: {why}", error=True)
        say(f"{output}: {output.stat().st_size:,} bytes, from {source.stat().st_size:,}")


def _checked(found: Any, where: str) -> tuple[nn.Module, tuple[Any, ...]]:
    """A network and its inputs, which a function of the user's returned.

    Raises:
        ValueError: if it returned anything else.
    """
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], nn.Module):
        model, inputs = found
        return model, inputs if isinstance(inputs, tuple) else (inputs,)
    raise ValueError(
        f"{where} must return a Module and a tuple of inputs, got {type(found).__name__}"
    )
