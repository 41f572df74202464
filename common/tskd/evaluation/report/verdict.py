"""State the result in words: "better" only where a test says so, and which method is the cheaper one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from tskd.evaluation.report import tables
from tskd.evaluation.report.run_tables import duration
from tskd.evaluation.report.runs import Arms
from tskd.evaluation.report.summary import Comparison, Number, seed_averages
from tskd.evaluation.report.tables import Table, count
from tskd.evaluation.rows import OVERALL
from tskd.evaluation.statistics import ALPHA

NEAR_ZERO = 0.1  # mean Dice below which a model has not learned its task


@dataclass(frozen=True)
class Method:
    """What a method is, and what it took.

    Attributes:
        description: the method in words.
        stages: (name, seconds) of each stage of one training, in their order; seconds are None where unknown.
        teacher: whether it is a teacher, which is large and not made to be used itself.
    """

    description: str
    stages: Sequence[tuple[str, float | None]] = ()
    teacher: bool = False

    @property
    def seconds(self) -> float | None:
        """All stages together, None where one is unknown."""
        known = [seconds for _, seconds in self.stages if seconds is not None]
        return sum(known) if known and len(known) == len(self.stages) else None


@dataclass(frozen=True)
class About:
    """The study that a report is of.

    Attributes:
        study: its name.
        methods: name -> method.
    """

    study: str
    methods: Mapping[str, Method] = field(default_factory=dict)


def verdict(numbers: Sequence[Number], comparisons: Sequence[Comparison], about: About | None = None) -> list[str]:
    """Return a sentence for each comparison of mean Dice; for a method that stands alone, its mean."""
    methods = about.methods if about else {}
    lines = list(_weak(numbers))
    several = len({(c.arm.dataset, c.arm.budget) for c in comparisons}) > 1
    for item in (item for item in comparisons if item.metric == "dice"):
        prefix = f"{item.arm.dataset}, {item.arm.budget} labels: " if several else ""
        lines.append(prefix + _sentence(item, methods))
    return lines


def _sentence(item: Comparison, methods: Mapping[str, Method]) -> str:
    gap = item.test.difference
    first, second = (item.arm.method, item.reference) if gap.mean > 0 else (item.reference, item.arm.method)
    ends = sorted(end if gap.mean > 0 else -end for end in (gap.low, gap.high) if end is not None)
    low, high = ends if len(ends) == 2 else (None, None)
    score = tables.with_interval(abs(gap.mean), low, high, "dice")
    facts = f"{count(item.test.n, 'patient')}, p = {tables.format_p(item.p_holm)}"
    if item.p_holm < ALPHA:
        return f"{first} was better than {second}: mean Dice higher by {score} ({facts})."
    text = f"No difference was shown between {item.reference} and {item.arm.method}"
    cheaper = _cheaper(item.reference, item.arm.method, methods)
    text += f": mean Dice of {first} higher by {score} ({facts})"
    if item.test.smallest_p >= ALPHA:
        text += "; with so few patients no test can show one"
    return f"{text}; {cheaper}." if cheaper else f"{text}."


def _cheaper(first_method: str, second_method: str, methods: Mapping[str, Method]) -> str:
    students = [name for name in (first_method, second_method) if name in methods and not methods[name].teacher]
    times = {name: methods[name].seconds for name in students}  # a teacher is the dearer one to use, whatever it took
    known = {name: seconds for name, seconds in times.items() if seconds is not None}
    if len(known) < 2:
        return ""
    first, second = sorted(known, key=lambda name: known[name])
    return f"{first} is cheaper ({duration(known[first])} of training against {duration(known[second])})"


def _weak(numbers: Sequence[Number]) -> Iterator[str]:
    for number in numbers:
        if (number.label, number.metric) == (OVERALL, "dice") and number.mean < NEAR_ZERO:
            yield (
                f"{number.method} ({number.budget} labels) has not learned the task: mean Dice "
                f"{tables.format_metric(number.mean, 'dice')}. "
                "It needs more steps, more labels or another learning rate."
            )


def methods_table(about: About) -> Table | None:
    """Return what each method is, and the time of its training with all that comes before it."""
    rows = [
        [name, method.description, "–" if method.seconds is None else duration(method.seconds)]
        for name, method in about.methods.items()
    ]
    return Table("What the methods are", ["Method", "What", "Time"], rows, texts=2) if rows else None


def stages_table(about: About) -> Table | None:
    """Return the time of every stage of every method; a stage that methods share has the same time in each."""
    rows = [
        [name, stage, "–" if seconds is None else duration(seconds)]
        for name, method in about.methods.items()
        for stage, seconds in method.stages
    ]
    note = "Of one training. A teacher, soft labels or images that methods share are made once and counted in each."
    return Table("Time of every stage", ["Method", "Stage", "Time"], rows, texts=2, note=note) if rows else None


def patients_table(arms: Arms) -> Table:
    """Return the mean Dice of each patient under each method and budget, worst patient first."""
    budgets = len({arm.budget for arm in arms}) > 1
    columns = [f"{arm.method}, {arm.budget}" if budgets else arm.method for arm in arms]
    frame = pd.concat([pd.Series(seed_averages(seeds, "dice")) for seeds in arms.values()], axis=1, keys=columns)
    frame = frame.loc[frame.mean(axis=1).sort_values(kind="stable").index]
    return Table("Dice of each patient", ["Patient", *columns], tables.cells(frame, "dice"), folded=True)
