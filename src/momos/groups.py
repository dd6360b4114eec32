"""Groups of parameters, each with motifs of its own."""

from collections.abc import Iterator, Sequence

from momos.blocks import Placement, matches


def grouped(
    placements: Sequence[Placement], groups: tuple[tuple[str, ...], ...]
) -> Iterator[list[Placement]]:
    """The placements of each group that has some, in their order; those of no group come last.

    A group is name patterns; a parameter belongs to the first that it matches.
    """
    left = list(placements)
    for patterns in groups:
        members = [place for place in left if matches(place.name, patterns)]
        left = [place for place in left if not matches(place.name, patterns)]
        if members:
            yield members
    if left:
        yield left
