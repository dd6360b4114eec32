"""Packs and streams behind one another in a section, and their lengths in the manifest."""

from collections.abc import Iterable, Iterator

from torch import Tensor

from momos.codec import PACK_VALUES, Pack, Stream
from momos.files.manifest import Coded, Packs


def split(values: Tensor) -> Iterator[Tensor]:
    """Flat values, cut into those of one pack each."""
    return (part.contiguous() for part in values.split(PACK_VALUES) if len(part))


def coded(stream: Stream) -> Coded:
    """What the manifest says of a stream."""
    return stream.rate, len(stream.data)


def lengths(packs: Iterable[Pack]) -> Packs:
    """What the manifest says of packs."""
    return tuple(tuple(coded(plane) for plane in pack.planes) for pack in packs)


def bytes_of(packs: Iterable[Pack]) -> Iterator[bytes]:
    return (plane.data for pack in packs for plane in pack.planes)


def cut(section: bytes, parts: Iterable[Coded]) -> Iterator[Stream]:
    """The streams that lie at the beginning of `section`."""
    position = 0
    for rate, length in parts:
        yield Stream(rate, section[position : position + length])
        position += length
