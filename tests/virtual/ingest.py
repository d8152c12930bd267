"""Loads a source into the tables in memory, or refuses it, by the rules of `ports.SourceStore`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict

from narrun_async.clock import local_now, utc_now, utc_text
from narrun_async.errors import BadInputError
from narrun_async.models import DataSource, FlagCounts, IngestReport, Screening, SourceNarrative, TextFlag
from narrun_async.ports import ConflictRule, NarrativeSource
from narrun_async.screening import ScreeningRules, flags_text
from virtual.tables import Draft, Row, Tables

Key = tuple[str, str]
Pause = Callable[[], Awaitable[None]]

LISTED_CONFLICTS = 10


async def insert_source(
    draft: Draft,
    tables: Tables,
    source: NarrativeSource,
    on_conflict: ConflictRule,
    rules: ScreeningRules | None,
    pause: Pause,
) -> IngestReport:
    """Put the narratives into the draft.

    :raises BadInputError: duplicates with different text, or keys that the tables hold already
    """
    by_key: dict[Key, list[SourceNarrative]] = {}
    for narrative in source.iter_narratives():
        by_key.setdefault((narrative.incident_id, narrative.narrative_type.value), []).append(narrative)
    await pause()
    if not by_key:
        raise BadInputError(f"{source.path}: there is no narrative in this file")
    if on_conflict == "error":
        _refuse_conflicts(source, by_key)
    known = {key: tables["narrative_ids"][key] for key in by_key if key in tables["narrative_ids"]}
    if known:
        return _report_known(tables, source, by_key, known)
    loaded_at, ids = local_now(), []
    for key, (first, *_) in by_key.items():
        ids.append(draft.next_number("source_narratives"))
        draft.put("narrative_ids", key, ids[-1])
        draft.fill("source_narratives", ids[-1], _columns(first, source, ids[-1], loaded_at))
    await pause()
    draft.put("sources", source.checksum, tuple(ids))
    screening = None if rules is None else screen_narratives(draft, source.checksum, ids, rules)
    return _report_loaded(source, by_key, loaded_at, screening)


def screen_narratives(draft: Draft, checksum: str, ids: Sequence[int], rules: ScreeningRules) -> Screening:
    """Flag the texts of a source, mark its repeats, and note it, unless the same rules find what they found before."""
    latest, firsts, n_changed = load_screening(draft, checksum), dict[str, int](), 0
    for narrative_id in ids:
        row = draft.get("source_narratives", narrative_id)
        first = firsts.setdefault(row["text_sha256"], narrative_id)
        found = {
            "text_flags": flags_text(rules.flags_of(row["narrative_text"])),
            "same_text_as": None if first == narrative_id else first,
        }
        if any(row[name] != value for name, value in found.items()):
            n_changed += 1
            draft.update("source_narratives", narrative_id, **found)
    if latest is not None and latest.rules_sha256 == rules.sha256 and not n_changed:
        return latest
    rows = [draft.get("source_narratives", narrative_id) for narrative_id in ids]
    screening = Screening(
        rules_name=rules.name,
        rules_sha256=rules.sha256,
        screened_at=utc_text(utc_now()),
        n_screened=len(rows),
        **asdict(count_flagged(rows)),
    )
    number = draft.next_number("screenings")
    draft.fill("screenings", number, asdict(screening) | {"screening_id": number, "data_checksum": checksum})
    draft.put("latest_screenings", checksum, screening)
    return screening


def load_screening(draft: Draft, checksum: str) -> Screening | None:
    found: Screening | None = draft.get("latest_screenings", checksum)
    return found


def count_flagged(rows: Sequence[Row]) -> FlagCounts:
    flags = [(row["text_flags"] or "").split(",") for row in rows]
    return FlagCounts(
        n_placeholder=sum(TextFlag.PLACEHOLDER in one for one in flags),
        n_near_empty=sum(TextFlag.NEAR_EMPTY in one for one in flags),
        n_truncated=sum(TextFlag.TRUNCATED in one for one in flags),
        n_identical=sum(
            row["same_text_as"] is not None and TextFlag.PLACEHOLDER not in one
            for row, one in zip(rows, flags, strict=True)
        ),
    )


def _columns(one: SourceNarrative, source: NarrativeSource, narrative_id: int, loaded_at: str) -> dict[str, object]:
    return {
        "narrative_id": narrative_id,
        "incident_id": one.incident_id,
        "narrative_type": one.narrative_type.value,
        "narrative_text": one.narrative_text,
        "manual_flag_ind": one.manual_flag_ind,
        "manual_flag": one.manual_flag,
        "data_source": source.path,
        "data_checksum": source.checksum,
        "loaded_at": loaded_at,
        "text_sha256": one.text_sha256,
        "incident_year": one.incident_year,
    }


def _refuse_conflicts(source: NarrativeSource, by_key: dict[Key, list[SourceNarrative]]) -> None:
    found = ["/".join(key) for key, group in by_key.items() if len({one.text_sha256 for one in group}) > 1]
    if found:
        more = f" and {len(found) - LISTED_CONFLICTS} more" if len(found) > LISTED_CONFLICTS else ""
        raise BadInputError(
            f"{source.path}: {len(found)} narratives occur more than once with different text: "
            f"{', '.join(found[:LISTED_CONFLICTS])}{more}",
            advice="correct the file, or keep the first of each with --on-conflict first",
        )


def _report_known(
    tables: Tables, source: NarrativeSource, by_key: dict[Key, list[SourceNarrative]], known: dict[Key, int]
) -> IngestReport:
    rows = tables["source_narratives"]
    n_equal = sum(rows[number]["text_sha256"] == by_key[key][0].text_sha256 for key, number in known.items())
    checksum = rows[next(iter(known.values()))]["data_checksum"]
    ids = tables["sources"][checksum]
    if len(known) == len(by_key) == n_equal and set(ids) == set(known.values()):
        row = rows[ids[0]]
        stored = DataSource(
            path=row["data_source"], checksum=checksum, n_narratives=len(ids), loaded_at=row["loaded_at"]
        )
        screening = tables["latest_screenings"].get(checksum)
        return IngestReport(source=stored, loaded=False, screening=screening, summary=source.summary())
    raise BadInputError(
        f"{source.path}: {len(known)} of its {len(by_key)} narratives are in the database already"
        f" ({n_equal} with the same text), so it is neither the same file nor a new one",
        advice="use another --db for this file",
    )


def _report_loaded(
    source: NarrativeSource,
    by_key: dict[Key, list[SourceNarrative]],
    loaded_at: str,
    screening: Screening | None,
) -> IngestReport:
    kept = [group[0] for group in by_key.values()]
    n_rows, n_texts = sum(map(len, by_key.values())), sum(
        len({one.text_sha256 for one in group}) for group in by_key.values()
    )  # fmt: skip
    return IngestReport(
        source=DataSource(path=source.path, checksum=source.checksum, n_narratives=len(kept), loaded_at=loaded_at),
        loaded=True,
        screening=screening,
        summary=source.summary(),
        n_cme=sum(one.narrative_type == "cme" for one in kept),
        n_le=sum(one.narrative_type == "le" for one in kept),
        n_labelled=sum(one.manual_flag_ind is not None for one in kept),
        n_positive=sum(one.manual_flag_ind == 1 for one in kept),
        n_duplicates=n_rows - n_texts,
        n_conflicts_dropped=n_texts - len(kept),
    )
