"""What becomes of the claims of the paper."""

from collections import Counter
from collections.abc import Sequence

from momos.study.claims import CLAIMS, Claim, claims
from momos.study.report.page.tables import Entry, Table, words
from momos.study.store import Finished

VERDICTS = ("supported", "not supported", "undecided")


def tables_of_claims(runs: Sequence[Finished]) -> list[Table]:
    """How often each verdict was given, and each of them; nothing without runs."""
    found = claims(runs) if runs else []
    return [_counts(found), _every(found)] if found else []


def _counts(found: Sequence[Claim]) -> Table:
    counts = Counter((claim.number, claim.verdict) for claim in found)
    return Table(
        name="verdict-counts",
        title="The claims in short",
        caption=(
            f"Number of verdicts, n = {len(found)}: one for each treatment, its settings and "
            "each measure. The table below has them one by one; they are not independent."
        ),
        columns=("claim", "text", *VERDICTS),
        numeric=frozenset({"claim", *VERDICTS}),
        rows=[
            (
                _number(number),
                Entry(text),
                *(_number(counts[number, verdict]) for verdict in VERDICTS),
            )
            for number, text in CLAIMS.items()
        ],
    )


def _every(found: Sequence[Claim]) -> Table:
    return Table(
        name="verdicts",
        title="Every verdict, by its measure",
        caption=(
            "Paired over seeds, with bootstrap 95 % intervals; the evidence says of how many "
            "seeds, and splits the effect into arrangement and value distribution."
        ),
        columns=("claim", "text", "verdict", "measure", "evidence"),
        numeric=frozenset({"claim"}),
        rows=[
            (
                _number(claim.number),
                *words(claim.text, claim.verdict, claim.measure, claim.evidence),
            )
            for claim in found
        ],
    )


def _number(value: int) -> Entry:
    return Entry(str(value), value)
