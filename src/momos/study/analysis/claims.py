"""The paper's three claims, each judged for every task, treatment and measure.

A verdict is that of a 95 % interval over seeds, and of one measure: rows are not corrected for
how many there are, so that one in forty is on the wrong side by chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from momos.study.analysis.cohort import Cohort, cohorts, reference_of
from momos.study.analysis.metric import (
    Metric,
    counted,
    factor_text,
    metric_difference,
    number,
)
from momos.study.analysis.quantities import Quantity, Split, measures_of, quantities_of
from momos.study.analysis.statistics import LEAST, Estimate
from momos.study.store import Finished

Verdict = Literal["supported", "not supported", "undecided"]
VERDICTS = get_args(Verdict)

CLAIMS = {
    1: "trained weights are simpler than the same network's weights at initialization",
    2: "pruning, quantization and distillation lower the complexity further",
    3: "MoMos-trained networks are simpler still, at comparable accuracy",
}
COMPARABLE = {"points": 0.5, "%": 2.0}  # what may be lost, by the unit of differences
NONE = "none"
NAMED = 2  # cases that a judgement names at most


@dataclass(frozen=True)
class Claim:
    """One claim, for a treatment of a task, by one measure.

    Both are empty where no run is about the claim. `measure` says whether it is a code or a
    score. `evidence` is a sentence.
    """

    number: int
    task: str
    treatment: str
    verdict: Verdict
    measure: str
    evidence: str

    @property
    def case(self) -> str:
        return f"{self.task}: {self.treatment}" if self.task else ""


@dataclass(frozen=True)
class Judgement:
    """One claim as a sentence, what its verdicts come to, and the same in words.

    `verdict` is "divided" where some comparisons support the claim and others do not.
    """

    number: int
    text: str
    verdict: Verdict | Literal["divided"]
    words: str


def claims(finished: Sequence[Finished]) -> list[Claim]:
    """Verdicts on each claim by every measure; all three claims have a row at least.

    Claim 1 is of dense networks trained from scratch, against their initialization; a published
    network is held against initializations such as it may have had. Claims 2 and 3 are of all
    other networks, against dense ones (see `reference_of`). Claim 3 needs a ratio below 1 and a
    metric that is `comparable`.
    """
    everything = cohorts(finished)
    found = [claim for cohort in everything for claim in _of(cohort, everything)]
    known = {claim.number for claim in found}
    missing = [number for number in CLAIMS if number not in known]
    nothing = "No finished run is about it."
    found += [Claim(number, "", "", "undecided", NONE, nothing) for number in missing]
    return sorted(found, key=lambda claim: claim.number)


def judgements(found: Sequence[Claim]) -> list[Judgement]:
    """One for each claim that there is."""
    by_number = {n: [c for c in found if c.number == n] for n in CLAIMS}
    return [_judgement(number, own) for number, own in by_number.items() if own]


def verdict_of(found: Estimate) -> Verdict:
    """Whether a ratio is below 1, by its interval."""
    if found.n < LEAST:
        return "undecided"
    if found.high < 1:
        return "supported"
    return "not supported" if found.low >= 1 else "undecided"


def comparable(found: Estimate, metric: Metric) -> Verdict:
    """Whether a difference loses no more of the metric than `COMPARABLE`, by its interval.

    Not supported where more is lost all along the interval.
    """
    if found.n < LEAST:
        return "undecided"
    sign = -1 if metric.higher_is_better else 1
    least, most = sorted(sign * end for end in (found.low, found.high))
    limit = COMPARABLE[metric.difference_unit]
    if most <= limit:
        return "supported"
    return "not supported" if least > limit else "undecided"


def _of(cohort: Cohort, everything: Sequence[Cohort]) -> list[Claim]:
    if cohort.is_dense:
        if cohort.cell.start is not None:  # its initialization has been trained already
            return []
        return [_trained(cohort, each) for each in measures_of(cohort.runs.values())]
    about = (3 if cohort.is_mosaic else 2, cohort.cell.task, cohort.full_label)
    reference, name = reference_of(cohort, everything)
    if reference is None:
        evidence = "No dense networks trained in the same way have finished."
        return [Claim(*about, "undecided", NONE, evidence)]
    metric = _metric(cohort, reference, decides=cohort.is_mosaic)
    return [
        _treated(about, cohort, reference, name, quantity, metric)
        for quantity in quantities_of(reference.runs.values())
    ]


def _trained(cohort: Cohort, quantity: Quantity) -> Claim:
    runs, why = cohort.runs, quantity.why_not(cohort.runs)
    about = (1, cohort.cell.task, cohort.full_label)
    try:
        found = quantity.against_init(runs)
    except ValueError:
        evidence = f"No seed has it both trained and at initialization ({why})."
        return Claim(*about, "undecided", str(quantity), evidence)
    evidence = _sentence(
        _times(found.ratio, "the initialization"),
        _split(found, "value distribution"),
        "one published network against initializations" * cohort.is_published,
        _left_out(len(runs), found.ratio.n, why),
    )
    return Claim(*about, verdict_of(found.ratio), str(quantity), evidence)


def _treated(
    about: tuple[int, str, str],
    cohort: Cohort,
    reference: Cohort,
    name: str,
    quantity: Quantity,
    metric: tuple[Verdict, str],
) -> Claim:
    """Claim 2 or 3 of one cohort by one measure, and by its `metric`."""
    runs, others = cohort.runs, reference.runs
    measure, shared = str(quantity), runs.keys() & others
    why = quantity.why_not(runs, others)
    try:
        found = quantity.against(runs, others)
    except ValueError:
        evidence = f"No seed has it both here and in {name} ({why})."
        if not shared:
            evidence = f"No seed is shared with {name}."
        return Claim(*about, "undecided", measure, evidence)
    sizes, (kept, difference) = _sizes(cohort, reference, name), metric
    evidence = _sentence(
        _times(found.ratio, name),
        _split(found, "value distribution" + " and size" * bool(sizes)),
        sizes,
        difference,
        _left_out(len(shared), found.ratio.n, why),
    )
    return Claim(*about, _both(verdict_of(found.ratio), kept), measure, evidence)


def _both(one: Verdict, other: Verdict) -> Verdict:
    if "not supported" in (one, other):
        return "not supported"
    return "undecided" if "undecided" in (one, other) else "supported"


def _metric(cohort: Cohort, reference: Cohort, *, decides: bool) -> tuple[Verdict, str]:
    """Whether the metric is comparable, where that `decides`; and by how much it differs."""
    try:
        found = metric_difference(cohort.runs, reference.runs)
    except ValueError as error:
        kept: Verdict = "undecided" if decides else "supported"
        return kept, f"no difference of metrics, as {error}"
    metric, verdict = reference.metric, comparable(found, reference.metric)
    amount = metric.amount(COMPARABLE[metric.difference_unit])
    words = f"{metric.name} {_signed(found, metric.difference_unit)}"
    if not decides:
        return "supported", words
    if found.n < LEAST:
        return verdict, f"{words}, too few seeds to say whether that is comparable"
    judgement = {
        "supported": f"comparable: no more than {amount} lost",
        "not supported": f"not comparable: more than {amount} lost",
        "undecided": f"a loss of more than {amount} not excluded",
    }
    return verdict, f"{words}, {judgement[verdict]}"


def _signed(found: Estimate, unit: str) -> str:
    text = f"{number(found.mean, 2, sign=True)} {unit}"
    if found.n < LEAST:
        return text
    low, high = (number(end, 2, sign=True) for end in (found.low, found.high))
    return f"{text} ({low} to {high})"


def _times(found: Estimate, name: str) -> str:
    mean, seeds = factor_text(found.mean), f"n = {counted(found.n, 'seed')}"
    if found.n < LEAST:
        return f"{mean} times that of {name} ({seeds}, undecided with fewer than {LEAST})"
    ends = f"{factor_text(found.low)} to {factor_text(found.high)}"
    return f"{mean} times that of {name} (95 % interval {ends}, {seeds})"


def _split(found: Split, rest: str) -> str:
    """The ratio as a product; geometric means of factors are exactly that."""
    if found.arrangement is None or found.rest is None:
        return "not split into arrangement and value distribution"
    arrangement = factor_text(found.arrangement.mean)
    return f"arrangement × {arrangement}, {rest} × {factor_text(found.rest)}"


def _sizes(cohort: Cohort, reference: Cohort, name: str) -> str:
    own, other = cohort.first.num_weights, reference.first.num_weights
    words = f"totals are compared, of {own} weights and of {other} in {name}"
    return words * (own != other)


def _left_out(total: int, used: int, why: str) -> str:
    return f"{total - used} of {total} shared seeds left out ({why})" * (total != used)


def _sentence(*parts: str) -> str:
    return f"{'; '.join(filter(None, parts))}."


def _judgement(number: int, own: Sequence[Claim]) -> Judgement:
    about = [claim for claim in own if claim.task]
    counts = [sum(claim.verdict == verdict for claim in about) for verdict in VERDICTS]
    words = _counts(counts) if about else own[0].evidence
    text = f"{CLAIMS[number][:1].upper()}{CLAIMS[number][1:]}."
    told = " ".join(filter(None, (words, _cases(about))))
    return Judgement(number, text, _overall(*counts), told)


def _overall(supporting: int, against: int, undecided: int) -> Verdict | Literal["divided"]:
    """Undecided comparisons outvote one side, but not both."""
    if supporting and against:
        return "divided"
    if max(supporting, against) <= undecided:
        return "undecided"
    return "supported" if supporting else "not supported"


def _counts(counts: Sequence[int]) -> str:
    total = sum(counts)
    one = ("supports it", "does not", "is undecided")
    several = ("support it", "do not", "are undecided")
    parts = [
        f"{count} {words[count != 1]}"
        for count, words in zip(counts, zip(one, several, strict=True), strict=True)
        if count
    ]
    if total == 1:
        return f"The only comparison {parts[0].removeprefix('1 ')}."
    if len(parts) == 1:
        return f"All {total} comparisons {parts[0].removeprefix(f'{total} ')}."
    return f"Of {total} comparisons, {', '.join(parts[:-1])} and {parts[-1]}."


def _cases(about: Sequence[Claim]) -> str:
    """For which cases all measures agree that it holds, where there are several cases."""
    one_task = len({claim.task for claim in about}) == 1
    verdicts: dict[str, set[str]] = {}
    for claim in about:
        case = claim.treatment if one_task else claim.case
        verdicts.setdefault(case, set()).add(claim.verdict)
    holding = [case for case, found in verdicts.items() if found == {"supported"}]
    if len(verdicts) < 2 or len(holding) == len(verdicts):
        return ""
    if not holding:
        return "It holds by every measure for no treatment."
    more = len(holding) - NAMED
    ending = f" and {more} more" if more > 0 else ""
    return f"It holds by every measure for {'; '.join(holding[:NAMED])}{ending}."
