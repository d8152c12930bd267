"""Owns what datasette is told about the tables: titles, descriptions, orders, facets, questions, and what is denied."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from narrun_async.codebook import QUESTIONS, Question

#: the name of the database in addresses
DATABASE = "narrun"

#: where texts are withheld, and where they are not
_WITHHELD = (
    "A copy in memory, without narratives, without anything that may quote one (answers, reasons, error messages), and "
    "without prompts. It is made anew when the database has changed."
)
_OPEN = (
    "A copy in memory, WITH narratives, everything that quotes them, and prompts. Whoever can read this page can read "
    "all of them. It is made anew when the database has changed."
)

_CHOICE = "Experiment: the beginning of its id, or nothing for all of them."

#: table → what it is, the order it is shown in, and the columns that are counted beside it
_TABLES: Mapping[str, Mapping[str, Any]] = {
    "narrative_results": {
        "title": "Results",
        "description": "One row a narrative: the answer, or the error.",
        "facets": ["narrative_type", "detected", "agreement", "error_category"],
    },
    "experiments": {
        "title": "Experiments",
        "description": "One frozen configuration over one frozen set of narratives, newest first.",
        "sort_desc": "created_at",
        "label_column": "experiment_name",
        "facets": ["status", "model_name", "prompt_version"],
    },
    "runs": {
        "title": "Runs",
        "description": "The lives of the processes that worked on an experiment, newest first.",
        "sort_desc": "run_id",
        "label_column": "mode",
        "facets": ["mode", "exit_code"],
    },
    "attempts": {
        "title": "Calls",
        "description": "Every call that was made, failed ones included, newest first.",
        "sort_desc": "attempt_id",
        "facets": ["error_category", "http_status", "narrative_type"],
    },
    "servings": {
        "title": "Who answered",
        "description": "Models and servers, in the order in which they were met; each is an instrument of its own.",
    },
    "canary_answers": {
        "title": "Asked again",
        "description": "Narratives that were asked again although their results stand.",
        "sort_desc": "canary_id",
        "facets": ["error_category"],
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What is browsed."""

    #: a line that says which database, and which experiment if it is one
    title: str
    #: table → column → its meaning
    columns: Mapping[str, Mapping[str, str]]
    with_text: bool
    #: a sentence that nobody should miss; may be empty
    notice: str
    #: rows are in the order of the cohort; otherwise the newest first
    is_one_experiment: bool


def site_metadata(shown: Shown) -> dict[str, Any]:
    """As datasette takes it; arbitrary SQL is denied."""
    order = {"sort": "row_num"} if shown.is_one_experiment else {"sort_desc": "result_id"}
    tables = {
        name: {**_TABLES[name], "columns": dict(columns), **(order if name == "narrative_results" else {})}
        for name, columns in shown.columns.items()
    }
    queries = {one.name: _question(one, asks_for_experiment=not shown.is_one_experiment) for one in QUESTIONS}
    description = " ".join(filter(None, [shown.notice, _OPEN if shown.with_text else _WITHHELD]))
    links = " · ".join(_link(_TABLES[name]["title"], f"/{DATABASE}/{name}") for name in shown.columns)
    return {
        "title": shown.title,
        "description": description,
        "allow_sql": False,
        "databases": {
            DATABASE: {
                "title": shown.title,
                "description_html": f"<p>{html.escape(description)}</p><p>{links}</p>",
                "tables": tables,
                "queries": queries,
            }
        },
    }


def _question(question: Question, *, asks_for_experiment: bool) -> dict[str, Any]:
    described = f"{question.description} {_CHOICE}" if asks_for_experiment else question.description
    rows = f"/{DATABASE}/narrative_results?{urlencode(question.rows)}"
    return {
        "title": question.title,
        "description_html": f"<p>{html.escape(described)}</p>"
        + (f"<p>{_link('The rows themselves', rows)}</p>" if question.rows else ""),
        "sql": question.statement(asks_for_experiment=asks_for_experiment),
        "params": ["experiment"] if asks_for_experiment else [],
        "hide_sql": True,
    }


def _link(text: str, address: str) -> str:
    return f'<a href="{html.escape(address)}">{html.escape(text)}</a>'


#: datasette's settings: nothing leaves but pages, and a page of a large experiment may take its time
SITE_SETTINGS: Mapping[str, Any] = {
    "default_allow_sql": False,
    "allow_download": False,
    "default_page_size": 50,
    "max_returned_rows": 5_000,
    "num_sql_threads": 1,
    "sql_time_limit_ms": 10_000,
    "facet_time_limit_ms": 5_000,
    # Looking for more columns to count took 3.7 of the 3.9 s of a page of 42,000 rows.
    "suggest_facets": False,
    "truncate_cells_html": 300,
    # The guard forbids the browser to keep anything.
    "default_cache_ttl": 0,
}
