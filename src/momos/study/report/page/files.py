"""The networks that runs left as mosaics, read for the pictures of their layers."""

from collections.abc import Iterable
from dataclasses import dataclass

import momos
from momos._util.escaping import visible
from momos.study.report.page.groups import Group, Subject
from momos.study.store import Broken, Finished

SUFFIX = ".momos"


@dataclass(frozen=True, eq=False)
class Opened:
    """A group that is looked into: the mosaic of its first seed, and what the files of all hold."""

    group: Group
    mosaic: momos.Mosaic
    reports: tuple[momos.SaveReport, ...]


def opened(subject: Subject) -> tuple[list[Opened], list[Broken]]:
    """For each treatment and block size the group of the best metric; and files beyond reading."""
    found: list[Opened] = []
    broken: list[Broken] = []
    for group in _best(subject.groups):
        try:
            mosaic = _load(group.first)
            reports = tuple(momos.inspect(run.network) for run in group.runs)
        except (OSError, ValueError) as error:  # a FormatError is a ValueError
            reason = visible(f"{group.label}: {error}")
            broken.append(Broken(group.first.folder, reason))
            continue
        if mosaic is not None:
            found.append(Opened(group, mosaic, reports))
    return found, broken


def _best(groups: Iterable[Group]) -> list[Group]:
    best: dict[tuple, Group] = {}
    for group in groups:
        if all(run.file.endswith(SUFFIX) for run in group.runs):
            key = (group.treatment, str(group.settings.get("block_size")))
            best[key] = max(best.get(key, group), group, key=_goodness)
    return list(best.values())


def _goodness(group: Group) -> float:
    if group.score is None:
        return float("-inf")
    return group.mean if group.metric.higher_is_better else -group.mean


def _load(run: Finished) -> momos.Mosaic | None:
    loaded = momos.load(run.network)
    return loaded if isinstance(loaded, momos.Mosaic) else loaded.mosaic
