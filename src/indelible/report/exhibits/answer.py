"""The answer first: one sentence, a picture of every arm, and what a reader should hold against it."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.figure import Figure

from indelible.numbers.estimate import Estimate
from indelible.report.drawing.dot_plot import Block, Dot, dot_plot
from indelible.report.exhibit import Group, Html, Part, Picture, Words, exhibit
from indelible.report.run import Run

MOST_ON_PAGE = 8
"""Arms that can be taken in at a glance."""
CAUTIONS = """
<p class="note">Read with care:</p>
<ul class="note">
{% for caution in cautions %}
  <li>{{ caution }}</li>
{% endfor %}
</ul>
"""


@exhibit("answer", place=0)
def answer(run: Run) -> Iterator[Part]:
    """The verdict in words, with the retention of all arms."""
    said = run.verdict
    yield Words(said.answer, "answer")
    if said.detail:
        yield Words(said.detail)
    if run.summary:
        description = f"Retention per arm with 95% intervals. {said.answer}"
        picture = Picture(lambda: overview(run), description, file="overview")
        yield picture if len(run.summary) <= MOST_ON_PAGE else Group([picture], "files")
    if said.cautions:
        yield Html(CAUTIONS, {"cautions": said.cautions})


def overview(run: Run) -> Figure:
    """Edited and intrinsic retention of every arm, as dots with 95% intervals."""
    blocks = []
    for line in run.summary:
        arm = str(line["arm"])
        dots = []
        for series in ("edited", "intrinsic"):
            found = run.estimate(arm, f"retention_{series}")
            if found.value is not None:
                dots.append(Dot("", series, found))
        blocks.append(Block(arm, dots or [Dot("", "unclear", Estimate(), "not measured after tuning")]))
    label = "retained after fine-tuning, of what had succeeded before"
    return dot_plot(blocks, label=label, key=("edited", "intrinsic"))
