"""Whether the confidence that the model states is deserved."""

from __future__ import annotations

from collections.abc import Sequence

from narrun_async.analysis.evaluation_tree import Calibration, CalibrationBin, Level
from narrun_async.analysis.report_tree import ConfidenceBand, Withheld
from narrun_async.reporting.html.blocks import Aside, Block, Figure, Gallery, Paragraph, Row, Section, Table, Tone
from narrun_async.reporting.html.charts import BarChart, BarSeries, Ink, PlacedPoint, SquareChart
from narrun_async.reporting.html.material import ReportMaterial
from narrun_async.reporting.html.wording import (
    DASH,
    count,
    fraction_interval,
    fraction_words,
    on_paper,
    parts,
    plural,
)
from narrun_async.reporting.measure_text import fraction_text, percent_of


def confidence_section(material: ReportMaterial) -> Section:
    blocks: list[Block] = []
    figures: list[Figure] = []
    bands, calibration = material.analysis.bands, material.evaluation.calibration
    if material.hides(Withheld.CONFIDENCE):
        blocks.append(Aside(tone=Tone.NOTE, text=material.not_shown))
    elif not bands:
        blocks.append(Paragraph(text="No answer states a confidence."))
    else:
        figures.append(_distribution(bands))
        if material.hides(Withheld.SINGLE_BANDS):
            text = f"Bands of confidence were put together until no count is below {material.analysis.suppress_below}."
            blocks.append(Aside(tone=Tone.NOTE, text=text))
    if material.hides(Withheld.CALIBRATION):
        if not material.hides(Withheld.CONFIDENCE):
            blocks.append(Aside(tone=Tone.NOTE, text=f"Confidence against labels: {material.not_shown.lower()}"))
    elif calibration.right.value is not None:
        how_counted = "with a label" if material.review is None else "that the labels stand for"
        blocks = [Paragraph(text=_how_deserved(calibration, how_counted)), *blocks]
        figures += _against_labels(material, calibration)
    if figures:
        blocks.append(Gallery(items=tuple(figures)))
    return Section(slug="confidence", title="Is the stated confidence deserved?", blocks=tuple(blocks))


def _how_deserved(calibration: Calibration, how_counted: str) -> str:
    right = calibration.right
    text = (
        f"On average the model states a confidence of {percent_of(calibration.mean_confidence)} in its answer, and "
        f"{percent_of(right.value)} of the answers are right ({parts(right)} {how_counted}). The Brier score is "
        f"{fraction_words(calibration.brier)}, where 0 is perfect; always saying the labelled rate would score "
        f"{fraction_text(calibration.brier_of_base_rate)}."
    )
    if calibration.n_without_confidence:
        text += f" {plural(calibration.n_without_confidence, 'answer')} without a confidence are not in this."
    return text


def _band_text(low: float, high: float) -> str:
    return f"{low:.1f}{DASH}{high:.1f}"


def _distribution(bands: Sequence[ConfidenceBand]) -> Figure:
    labels = tuple(_band_text(band.low, band.high) for band in bands)
    most = max(bands, key=lambda band: band.n_yes + band.n_no)
    return Figure(
        name="confidence",
        title="Confidence that the answers state",
        description=(
            f"Stacked bars, yes and no by band of confidence. Most answers lie in {_band_text(most.low, most.high)}."
        ),
        chart=BarChart(
            labels=labels,
            series=(
                BarSeries(name="yes", ink=Ink.FIRST, counts=tuple(band.n_yes for band in bands)),
                BarSeries(name="no", ink=Ink.SECOND, counts=tuple(band.n_no for band in bands)),
            ),
            title_of_labels="stated confidence",
            title_of_counts="answers",
        ),
        numbers=Table(
            caption="Answers by stated confidence",
            head=("Confidence", "Yes", "No"),
            rows=tuple(
                Row(head=label, cells=(f"{band.n_yes:,}", f"{band.n_no:,}"))
                for label, band in zip(labels, bands, strict=True)
            ),
        ),
    )


def _against_labels(material: ReportMaterial, calibration: Calibration) -> list[Figure]:
    counted = "With a label" if material.review is None else "The labels stand for"
    figures = [_reliability([one for one in calibration.bins if one.right.value is not None], counted)]
    if calibration.curve:
        figures.append(_precision_recall(material, calibration))
    return figures


def _reliability(bins: Sequence[CalibrationBin], counted: str) -> Figure:
    points = []
    for one in bins:
        interval = one.right.best_interval
        if one.mean_confidence is not None and one.right.value is not None:
            points.append(
                PlacedPoint(
                    x=on_paper(one.mean_confidence),
                    y=on_paper(one.right.value),
                    low=None if interval is None else on_paper(interval.low),
                    high=None if interval is None else on_paper(interval.high),
                )
            )
    rows = tuple(
        Row(
            head=_band_text(one.low, one.high),
            cells=(
                f"{one.n_answers:,}",
                count(one.right.denominator or 0),
                fraction_text(one.mean_confidence),
                fraction_text(one.right.value),
                fraction_interval(one.right.best_interval),
            ),
        )
        for one in bins
    )
    return Figure(
        name="reliability",
        title="Is the model right as often as it says?",
        description=(
            "Share of right answers against mean stated confidence, by band. On the diagonal both are equal; points "
            "below it are overconfident. The numbers are in the table."
        ),
        caption="On the dotted line the model is right as often as it says, above it more often, below it less.",
        chart=SquareChart(
            points=tuple(points), x_title="stated confidence", y_title="share of right answers", has_diagonal=True
        ),
        numbers=Table(
            caption="Stated confidence and share of right answers",
            head=("Confidence", "Answers", counted, "Mean confidence", "Right", "95 % interval"),
            rows=rows,
        ),
    )


def _precision_recall(material: ReportMaterial, calibration: Calibration) -> Figure:
    narratives = material.level(Level.NARRATIVES)
    base = narratives.prevalence.labelled.value if narratives is not None else None
    curve = calibration.curve
    shown = curve[:: max(1, len(curve) // 12)]
    return Figure(
        name="precision-recall",
        title="Precision and recall at other thresholds",
        description=(
            "Precision against recall if a narrative counted as detected from some stated probability on. Average "
            f"precision {fraction_text(calibration.average_precision.value)}."
        ),
        caption=(
            f"Average precision {fraction_text(calibration.average_precision.value)}; the dotted line is what guessing "
            "would give. A threshold chosen from this curve has to be tested on other labels."
        ),
        chart=SquareChart(
            points=tuple(PlacedPoint(x=point.recall, y=point.precision) for point in curve),
            x_title="recall (sensitivity)",
            y_title="precision (PPV)",
            is_line=True,
            level=base,
            level_name="labelled yes",
        ),
        numbers=Table(
            caption="Some points of the curve",
            head=("Detected if P(yes) is at least", "Precision", "Recall"),
            rows=tuple(
                Row(head=f"{one.threshold:.2f}", cells=(f"{one.precision:.3f}", f"{one.recall:.3f}")) for one in shown
            ),
        ),
    )
