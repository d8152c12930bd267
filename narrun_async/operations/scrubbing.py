"""Takes the narratives out of a database for good, and refuses work that would need them afterwards."""

from __future__ import annotations

from collections.abc import Sequence

from narrun_async import __version__
from narrun_async.errors import BadInputError
from narrun_async.models import Cohort, ScrubRecord
from narrun_async.ports import ScrubStore, TextPresence


async def scrub(store: ScrubStore, *, host: str) -> ScrubRecord | None:
    """Drop every narrative and every quotation of one. Safe to repeat; a repetition finishes what was cut short.

    :returns: the record that the database keeps; None where it never held a text
    """
    return await store.scrub_texts(narrun_version=__version__, host=host)


async def refuse_scrubbed(store: TextPresence, cohort: Cohort) -> None:
    """:raises BadInputError: narratives of the cohort have no text any more, so they cannot be sent"""
    if n_textless := await store.count_textless(cohort):
        raise BadInputError(
            f"{await _gone_words(store, n_textless, cohort.n_narratives)}, so they cannot be sent again",
            advice="the results stay readable; for new calls load the workbook into another --db",
        )


async def refuse_unreadable(store: TextPresence, have_text: Sequence[bool]) -> None:
    """:param have_text: of each narrative that people are to read
    :raises BadInputError: some have none any more
    """
    if n_textless := len(have_text) - sum(have_text):
        raise BadInputError(
            f"{await _gone_words(store, n_textless, len(have_text))}, so nobody can read them",
            advice="answers, and labels that were taken in, stay as they are",
        )


async def _gone_words(store: TextPresence, n_textless: int, n_narratives: int) -> str:
    record = await store.load_latest_scrub()
    when = f"were scrubbed on {record.scrubbed_at}" if record else "are gone, and no scrub is recorded"
    return f"the texts of {n_textless:,} of these {n_narratives:,} narratives {when}"
