"""What becomes of the three claims, task by task."""

from collections import Counter
from collections.abc import Sequence

from momos.study.claims import CLAIMS, NONE, Claim, claims
from momos.study.report.markdown import markdown
from momos.study.report.page.verdicts import VERDICTS, tables_of_claims
from momos.study.report.results.part import Part, by_task
from momos.study.store import Finished


def claims_part(runs: Sequence[Finished]) -> Part:
    """How many verdicts of each kind, by claim and task, codes and scores apart."""
    rows = []
    for number in CLAIMS:
        for task in dict.fromkeys(task for task, _ in by_task(runs)):
            found = [
                claim
                for claim in claims([run for run in runs if run.cell.task == task])
                if claim.number == number and claim.measure != NONE
            ]
            rows += _rows(number, task, found)
    if not rows:
        return Part()
    told = "\n".join(f"{number}. {text}" for number, text in CLAIMS.items())
    table = markdown(("claim", "task", "measured by", *VERDICTS), rows, left=3)
    every = [t for t in tables_of_claims(runs) if t.name == "verdicts"]
    return Part(f"{told}\n\n{table}", tables=every)


def _rows(number: int, task: str, found: Sequence[Claim]) -> list[tuple[str, ...]]:
    rows = []
    for kind in ("code", "score"):
        own = [claim for claim in found if f"({kind}" in claim.measure]
        counts = Counter(claim.verdict for claim in own)
        if own:
            rows.append(
                (str(number), task, f"{kind}s", *(str(counts[name]) for name in VERDICTS))
            )
    return rows
