"""What a page is made of: sections of blocks, all of them strings and charts; nothing in them is HTML.

A block's `kind` is the name of the template that renders it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from narrun_async.reporting.html.charts import Chart


class Tone(StrEnum):
    """How loudly something is said."""

    NOTE = "note"
    WARNING = "warning"
    ALARM = "alarm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paragraph:
    """A paragraph of prose."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """A heading below that of the section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """Something that must not be overlooked."""

    kind: ClassVar[str] = "aside"
    tone: Tone
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bullets:
    """A list of sentences."""

    kind: ClassVar[str] = "bullets"
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of a table: what it is about, then its cells."""

    head: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table with a heading for every row and column."""

    kind: ClassVar[str] = "table"
    caption: str
    #: of the column of row headings, then of the others
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    #: sentences below it
    notes: tuple[str, ...] = ()
    #: cells hold sentences, not numbers
    is_prose: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A name and what there is to it."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A list of facts."""

    kind: ClassVar[str] = "facts"
    items: tuple[Fact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One number that matters, with what is needed to judge it."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cards:
    """The numbers that a reader looks for first."""

    kind: ClassVar[str] = "cards"
    items: tuple[Card, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossCell:
    """A cell of a 2×2 table."""

    count: str
    #: what it means
    meaning: str
    is_agreement: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossTable:
    """A 2×2 table with its margins, drawn as such."""

    kind: ClassVar[str] = "cross_table"
    caption: str
    first: str
    second: str
    #: yes/yes, yes/no, no/yes, no/no: the first says, then the second
    cells: tuple[CrossCell, CrossCell, CrossCell, CrossCell]
    #: of rows yes and no, of columns yes and no, of all
    margins: tuple[str, str, str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A drawing, what it shows in words, and its numbers."""

    kind: ClassVar[str] = "figure"
    #: unique on the page; letters and hyphens
    name: str
    title: str
    #: for whoever cannot see it
    description: str
    chart: Chart
    #: for everybody
    caption: str = ""
    numbers: Table | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """Blocks side by side where there is room."""

    kind: ClassVar[str] = "gallery"
    items: tuple[Figure | CrossTable, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowBox:
    """A box of a flow chart."""

    title: str
    #: the number in it
    count: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowStep:
    """A box of the way down, and what leaves the way before the next one."""

    box: FlowBox
    leaves: FlowBox | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowChart:
    """From what there was to what came out."""

    kind: ClassVar[str] = "flow_chart"
    name: str
    title: str
    description: str
    steps: tuple[FlowStep, ...]
    #: side by side below the last step
    outcomes: tuple[FlowBox, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verbatim:
    """A text exactly as it is."""

    kind: ClassVar[str] = "verbatim"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotation:
    """Prose to be copied."""

    kind: ClassVar[str] = "quotation"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Something that is opened by who wants to see it."""

    kind: ClassVar[str] = "fold"
    summary: str
    blocks: tuple[Verbatim | Table | Facts | Paragraph, ...]


Block = (
    Paragraph
    | Heading
    | Aside
    | Bullets
    | Table
    | Facts
    | Cards
    | CrossTable
    | Figure
    | Gallery
    | FlowChart
    | Verbatim
    | Quotation
    | Fold
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page, which the table of contents leads to."""

    #: unique on the page
    slug: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The whole report."""

    title: str
    subtitle: str
    #: below the title
    facts: tuple[Fact, ...]
    #: before everything else
    asides: tuple[Aside, ...]
    sections: tuple[Section, ...]
    footer: str
