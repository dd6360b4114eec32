"""The claims of the paper on the page: each judged in words, and the verdicts behind that."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from momos.study.claims import CLAIMS, Claim, claims
from momos.study.report.page.looks import sentence
from momos.study.report.page.tables import Entry, Table, words
from momos.study.store import Finished

VERDICTS = ("supported", "not supported", "undecided")
NAMED = 2  # cases that a judgement names at most


@dataclass(frozen=True)
class Judgement:
    """One claim as a sentence, what its verdicts come to, and the same in words.

    `verdict` is "divided" where some comparisons support the claim and others do not.
    """

    number: int
    text: str
    verdict: Literal["supported", "not supported", "undecided", "divided"]
    words: str


def judgements(runs: Sequence[Finished]) -> list[Judgement]:
    """One for each claim; nothing without runs."""
    found = claims(runs) if runs else []
    by_number = {n: [c for c in found if c.number == n] for n in CLAIMS}
    return [_judgement(number, own) for number, own in by_number.items() if own]


def tables_of_claims(runs: Sequence[Finished]) -> list[Table]:
    """Each verdict by itself; nothing without runs."""
    found = claims(runs) if runs else []
    return [_every(found)] if found else []


def _judgement(number: int, own: Sequence[Claim]) -> Judgement:
    about = [claim for claim in own if claim.case]
    counts = Counter(claim.verdict for claim in about)
    told = _told(*(counts[verdict] for verdict in VERDICTS)) if about else own[0].evidence
    return Judgement(
        number,
        f"{sentence(CLAIMS[number])}.",
        _overall(counts),
        " ".join(filter(None, (told, _cases(about)))),
    )


def _overall(
    counts: Counter[str],
) -> Literal["supported", "not supported", "undecided", "divided"]:
    """Those who are undecided outvote one side, but not both."""
    supporting, against, undecided = (counts[verdict] for verdict in VERDICTS)
    if supporting and against:
        return "divided"
    if max(supporting, against) <= undecided:
        return "undecided"
    return "supported" if supporting else "not supported"


def _told(supporting: int, against: int, undecided: int) -> str:
    """How many comparisons say what, as a sentence."""
    total = supporting + against + undecided
    parts = [
        f"{count} {words[count != 1]}"
        for count, words in (
            (supporting, ("supports it", "support it")),
            (against, ("does not", "do not")),
            (undecided, ("is undecided", "are undecided")),
        )
        if count
    ]
    if total == 1:
        return f"The only comparison {parts[0].removeprefix('1 ')}."
    if len(parts) == 1:
        ending = parts[0].removeprefix(f"{total} ")
        return f"All {total} comparisons {ending}."
    return f"Of {total} comparisons, {', '.join(parts[:-1])} and {parts[-1]}."


def _cases(about: Sequence[Claim]) -> str:
    """For which cases all measures agree that it holds, where there are several cases."""
    verdicts: dict[str, set[str]] = {}
    for claim in about:
        verdicts.setdefault(claim.case, set()).add(claim.verdict)
    holding = [case for case, found in verdicts.items() if found == {"supported"}]
    if len(verdicts) < 2 or len(holding) == len(verdicts):
        return ""
    if not holding:
        return "It holds by every measure for no treatment."
    if len({case.partition(": ")[0] for case in verdicts}) == 1:
        holding = [case.partition(": ")[2] for case in holding]
    more = len(holding) - NAMED
    ending = f" and {more} more" if more > 0 else ""
    return f"It holds by every measure for {'; '.join(holding[:NAMED])}{ending}."


def _every(found: Sequence[Claim]) -> Table:
    return Table(
        name="verdicts",
        title="Every verdict, by case and measure",
        caption=(
            f"n = {len(found)} verdicts, which are not independent; claims are numbered as at "
            "the top. Paired over seeds, with bootstrap 95 % intervals; the evidence says of how "
            "many seeds, and splits the effect into arrangement and value distribution."
        ),
        columns=("claim", "case", "verdict", "measure", "evidence"),
        numeric=frozenset({"claim"}),
        rows=[
            (
                Entry(str(claim.number), claim.number),
                *words(claim.case, claim.verdict, claim.measure, claim.evidence),
            )
            for claim in found
        ],
    )
