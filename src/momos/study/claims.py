"""The paper's three claims, each judged for every task, treatment and measure.

A verdict is that of a 95 % interval over seeds, and of one measure: rows are not corrected for
how many there are, so that one in forty is on the wrong side by chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from momos.study.cohorts import Cohort, cohorts, reference_of
from momos.study.quantities import (
    FILE_LENGTH,
    Quantity,
    Split,
    factor_text,
    metric_difference,
    metric_of,
    quantities_of,
)
from momos.study.report.metric import number
from momos.study.statistics import Difference, Ratio
from momos.study.store import Finished

Verdict = Literal["supported", "not supported", "undecided"]

CLAIMS = {
    1: "trained weights are simpler than the same network's weights at initialization",
    2: "pruning, quantization and distillation lower the complexity further",
    3: "MoMos-trained networks are simpler still, at comparable accuracy",
}
LEAST = 3  # seeds from which there is a verdict
COMPARABLE = {"points": 0.5, "%": 2.0}  # what may be lost, by the unit of differences
NONE = "none"


@dataclass(frozen=True)
class Claim:
    """One claim, for the case that its text ends with, by one measure.

    `measure` says whether it is a code or a score. `evidence` is a sentence.
    """

    number: int
    text: str
    verdict: Verdict
    measure: str
    evidence: str

    @property
    def case(self) -> str:
        """Task and treatment, without the sentence; empty where no run is about the claim."""
        return self.text.removeprefix(CLAIMS[self.number])[2:-1]


def claims(finished: Sequence[Finished]) -> list[Claim]:
    """What the runs say of each claim, by every measure; all three claims have a row at least.

    Supported where the interval of a ratio lies below 1, not supported where it lies at or
    above 1; between both, or of fewer than 3 seeds, it is undecided. Claim 1 is of dense
    networks trained from scratch, against their initialization, of which there is no file; a
    published network is held against initializations such as it may have had.
    Claims 2 and 3 are of all other networks, against the dense ones of their cohort (see
    `reference_of`), also where "still" would ask for more. Claim 3 is supported only if no more
    is lost than 0.5 points of accuracy, or 2 % of bits per character, all along the interval,
    and not supported where that much is lost all along it.
    """
    everything = cohorts(finished)
    found = [claim for cohort in everything for claim in _of(cohort, everything)]
    said = {claim.number for claim in found}
    found += [
        Claim(number, text, "undecided", NONE, "No finished run is about it.")
        for number, text in CLAIMS.items()
        if number not in said
    ]
    return sorted(found, key=lambda claim: claim.number)


def _of(cohort: Cohort, everything: Sequence[Cohort]) -> list[Claim]:
    if cohort.is_dense:
        if cohort.cell.start is not None:  # its initialization has been trained already
            return []
        quantities = quantities_of(cohort.runs.values())
        return [_trained(cohort, each) for each in quantities if each.name != FILE_LENGTH]
    number = 3 if cohort.is_mosaic else 2
    found = reference_of(cohort, everything)
    if found is None:
        evidence = "No dense networks trained in the same way have finished."
        return [Claim(number, _text(number, cohort), "undecided", NONE, evidence)]
    reference, name = found
    return [
        _treated(number, cohort, reference, name, quantity)
        for quantity in quantities_of(reference.runs.values())
    ]


def _text(number: int, cohort: Cohort) -> str:
    return f"{CLAIMS[number]} ({cohort.cell.task}: {cohort.label})"


def _trained(cohort: Cohort, quantity: Quantity) -> Claim:
    """Claim 1 of one cohort by one measure."""
    text, runs, why = _text(1, cohort), cohort.runs, quantity.why_not(cohort.runs)
    try:
        found = quantity.against_init(runs)
    except ValueError:
        evidence = f"No seed has it both trained and at initialization ({why})."
        return Claim(1, text, "undecided", str(quantity), evidence)
    evidence = _sentence(
        _times(found.ratio, "the initialization"),
        _split(found, "value distribution"),
        "one published network against initializations" * cohort.is_published,
        _left_out(len(runs), found.ratio.n, why),
    )
    return Claim(1, text, verdict_of(found.ratio), str(quantity), evidence)


def _treated(
    number: int, cohort: Cohort, reference: Cohort, name: str, quantity: Quantity
) -> Claim:
    """Claim 2 or 3 of one cohort by one measure."""
    text, measure = _text(number, cohort), str(quantity)
    runs, others, why = (
        cohort.runs,
        reference.runs,
        quantity.why_not(cohort.runs, reference.runs),
    )
    try:
        found = quantity.against(runs, others)
    except ValueError:
        evidence = f"No seed has it both here and in {name} ({why})."
        if not runs.keys() & others.keys():
            evidence = f"No seed is shared with {name}."
        return Claim(number, text, "undecided", measure, evidence)
    verdict = verdict_of(found.ratio)
    difference, kept, judgement = _metric(cohort, reference)
    sizes = _sizes(cohort, reference, name)
    evidence = _sentence(
        _times(found.ratio, name),
        _split(found, "value distribution" + " and size" * bool(sizes)),
        sizes,
        difference + judgement * (number == 3),
        _left_out(len(runs.keys() & others.keys()), found.ratio.n, why),
    )
    if number == 3:
        verdict = _both(verdict, kept)
    return Claim(number, text, verdict, measure, evidence)


def verdict_of(found: Ratio) -> Verdict:
    """Whether a ratio is below 1, by its interval."""
    if found.n < LEAST:
        return "undecided"
    if found.high < 1:
        return "supported"
    return "not supported" if found.low >= 1 else "undecided"


def comparable(cohort: Cohort, reference: Cohort) -> Verdict:
    """Whether no more of the metric is lost than `COMPARABLE`, by its interval."""
    return _metric(cohort, reference)[1]


def _both(one: Verdict, other: Verdict) -> Verdict:
    """That of two conditions, both of which must hold."""
    if "not supported" in (one, other):
        return "not supported"
    return "undecided" if "undecided" in (one, other) else "supported"


def _metric(cohort: Cohort, reference: Cohort) -> tuple[str, Verdict, str]:
    """By how much the metric differs, whether it is comparable, and that in words."""
    try:
        found = metric_difference(cohort.runs, reference.runs)
    except ValueError as error:
        return f"no difference of metrics, as {error}", "undecided", ""
    metric = metric_of(next(iter(reference.runs.values())))
    limit = COMPARABLE[metric.difference_unit]
    amount = metric.amount(limit)
    told = f"{metric.label.partition(',')[0]} {_signed(found, metric.difference_unit)}"
    sign = -1 if metric.higher_is_better else 1
    least, most = sorted(sign * end for end in (found.low, found.high))
    if found.n < LEAST:
        return told, "undecided", ", too few seeds to say whether that is comparable"
    if most <= limit:
        return told, "supported", f", comparable: no more than {amount} lost"
    if least > limit:
        return told, "not supported", f", not comparable: more than {amount} lost"
    return told, "undecided", f", a loss of more than {amount} not excluded"


def _signed(found: Difference, unit: str) -> str:
    text = f"{number(found.mean, 2, sign=True)} {unit}"
    if found.n < LEAST:
        return text
    low, high = (number(end, 2, sign=True) for end in (found.low, found.high))
    return f"{text} ({low} to {high})"


def _times(found: Ratio, name: str) -> str:
    seeds = f"n = {found.n} seed{'s' * (found.n > 1)}"
    if found.n < LEAST:
        seeds += f", undecided with fewer than {LEAST}"
        return f"{factor_text(found.mean)} times that of {name} ({seeds})"
    ends = f"{factor_text(found.low)} to {factor_text(found.high)}"
    return f"{factor_text(found.mean)} times that of {name} (95 % interval {ends}, {seeds})"


def _split(found: Split, rest: str) -> str:
    """The ratio as a product; geometric means of factors are exactly that."""
    if found.arrangement is None or found.rest is None:
        return "not split into arrangement and value distribution"
    arrangement = factor_text(found.arrangement.mean)
    return f"arrangement × {arrangement}, {rest} × {factor_text(found.rest)}"


def _sizes(cohort: Cohort, reference: Cohort, name: str) -> str:
    own, other = (
        next(iter(each.runs.values())).num_weights for each in (cohort, reference)
    )
    if own == other:
        return ""
    return f"totals are compared, of {own} weights and of {other} in {name}"


def _left_out(total: int, used: int, why: str) -> str:
    if total == used:
        return ""
    return f"{total - used} of {total} shared seeds left out ({why})"


def _sentence(*parts: str) -> str:
    return f"{'; '.join(filter(None, parts))}."
