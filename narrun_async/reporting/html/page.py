"""Puts the sections of a report in an order that tells the story, below a head that says what it is. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from narrun_async.models import ExperimentStatus
from narrun_async.reporting.html.blocks import Aside, Fact, Page, Section, Tone
from narrun_async.reporting.html.material import ReportMaterial
from narrun_async.reporting.html.sections.accuracy import accuracy_section
from narrun_async.reporting.html.sections.agreement import agreement_section
from narrun_async.reporting.html.sections.brief import brief_section
from narrun_async.reporting.html.sections.checklists import checklists_section
from narrun_async.reporting.html.sections.confidence import confidence_section
from narrun_async.reporting.html.sections.course import course_section
from narrun_async.reporting.html.sections.detection import detection_section
from narrun_async.reporting.html.sections.errors import errors_section
from narrun_async.reporting.html.sections.flow import flow_section
from narrun_async.reporting.html.sections.glossary import glossary_section
from narrun_async.reporting.html.sections.indicators import indicators_section
from narrun_async.reporting.html.sections.methods import methods_section
from narrun_async.reporting.html.sections.prevalence import prevalence_section
from narrun_async.reporting.html.sections.provenance import provenance_section
from narrun_async.reporting.html.sections.reviews import reviews_section
from narrun_async.reporting.html.wording import clean, plural


def build_page(material: ReportMaterial) -> Page:
    """Everything that the report says."""
    flow = material.evaluation.flow
    return Page(
        title=clean(material.experiment.name) or "Experiment without a name",
        subtitle=(
            f"What {_who(material)} answered about {plural(flow.n_eligible, 'narrative')}, and how far that can be "
            "trusted"
        ),
        facts=(
            Fact(name="experiment", value=material.experiment.experiment_id),
            Fact(name="state", value=material.status.value),
            Fact(name="written", value=material.written_at.strftime("%Y-%m-%d %H:%M UTC")),
        ),
        asides=tuple(_asides(material)),
        sections=tuple(_sections(material)),
        footer=(
            f"Written by narrun_async {material.narrun_version} from its database. Every number was counted when this "
            "file was written; the file loads nothing from anywhere."
        ),
    )


def _sections(material: ReportMaterial) -> Iterator[Section]:
    yield brief_section(material)
    yield flow_section(material)
    yield detection_section(material)
    yield accuracy_section(material)
    yield agreement_section(material)
    yield prevalence_section(material)
    yield confidence_section(material)
    yield errors_section(material)
    yield indicators_section(material)
    if (reviews := reviews_section(material)) is not None:
        yield reviews
    yield course_section(material)
    yield provenance_section(material)
    yield methods_section(material)
    yield checklists_section(material)
    yield glossary_section()


def _who(material: ReportMaterial) -> str:
    return "a simulated endpoint" if material.is_simulated else "a language model"


def _asides(material: ReportMaterial) -> Iterator[Aside]:
    if material.is_simulated:
        yield Aside(
            tone=Tone.ALARM,
            text="SIMULATED. No language model was asked: a keyword rule made these answers. They mean nothing, and "
            "neither does any number below.",
        )
    if material.status is not ExperimentStatus.COMPLETED:
        yield Aside(
            tone=Tone.WARNING,
            text=f"The experiment is not complete ({material.status.value}): these are the numbers of what is done.",
        )
    if material.indicators:
        yield Aside(
            tone=Tone.WARNING,
            text="This report holds phrases from narratives (“What the answers are based on”). Protect it like them.",
        )
    if material.analysis.suppress_below is not None:
        yield Aside(
            tone=Tone.NOTE,
            text=f"Counts of fewer than {material.analysis.suppress_below} people are not shown, nor anything from "
            "which they could be computed. How many texts were sent, failed or skipped is shown: that tells of the "
            "work, not of people.",
        )
