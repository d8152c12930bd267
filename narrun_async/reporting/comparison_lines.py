"""How experiments compare, as lines for people and as a document for scripts; ids and types of cases, never a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from narrun_async.analysis.comparison_tree import (
    ComparisonReport,
    Contender,
    DiscordantCase,
    LevelComparison,
    Luck,
    PairComparison,
    PairedTest,
    Standing,
)
from narrun_async.analysis.evaluation_tree import Level
from narrun_async.analysis.values import Measure
from narrun_async.config import NOT_SET
from narrun_async.reporting.measure_text import (
    brief_text,
    count_text,
    fraction_text,
    interval_text,
    p_text,
    parts_text,
)
from narrun_async.reporting.tables import SIMULATED_NOTICE
from narrun_async.reporting.wording import aligned, printable

_INDENT = "  "
#: from so many configurations on, their best is a choice among many
MANY_CONFIGURATIONS = 5
#: more settings than these do not fit beside the measures
MOST_COLUMNS = 4
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def comparison_lines(report: ComparisonReport) -> list[str]:
    """The whole comparison, section by section."""
    lines = _contender_lines(report)
    if any(one.subject.is_simulated for one in report.contenders):
        lines.append(SIMULATED_NOTICE)
    lines += [f"NOTE: {remark}" for remark in report.remarks]
    lines += _section("WHAT IS COMPARED", _fall_out_lines(report))
    for level in report.levels:
        if level.n_compared:
            lines += _section(f"AGAINST THE LABELS: {level.n_compared:,} {level.level.value}", _standing_lines(level))
    if report.luck is not None:
        lines += _section("HOW MUCH OF THE BEST IS LUCK?", _luck_lines(report.luck))
    if report.varying and len(report.contenders) > 2:
        lines += _section("BY SETTINGS, best F1 of narratives first", _matrix_lines(report))
    for level in report.levels:
        if level.n_common:
            lines += _section(f"AGAINST EACH OTHER: {level.n_common:,} {level.level.value}", _pair_lines(level))
    lines += _section("NARRATIVES ON WHICH THEY DIFFER", _discordant_lines(report))
    return [*lines, "", *_legend(report)]


def comparison_json(report: ComparisonReport) -> dict[str, object]:
    """The whole tree by the names of its fields; null where undefined, with the reason in `remark`."""
    return {"confidence_level": 0.95, **asdict(report)}


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", title, *(f"{_INDENT}{line}".rstrip() for line in lines)]


def _name(number: int) -> str:
    """A, B, C, and after Z: AA, AB."""
    whole, rest = divmod(number, len(_LETTERS))
    return (_LETTERS[whole - 1] if whole else "") + _LETTERS[rest]


def _contender_lines(report: ComparisonReport) -> list[str]:
    rows = [
        (_name(number), one.subject.experiment_id, one.subject.name, _settings_text(one, report.varying))
        for number, one in enumerate(report.contenders)
    ]
    return aligned(rows)


def _settings_text(contender: Contender, varying: Sequence[str]) -> str:
    """What sets it apart."""
    return ", ".join(f"{key} {contender.settings.get(key, NOT_SET)}" for key in varying) or "same settings"


def _fall_out_lines(report: ComparisonReport) -> list[str]:
    header = ("", "answered", "errors", "skipped", "no row yet", "not in its cohort")
    rows = [
        (
            _name(number),
            *(f"{one:,}" for one in (out.answered, out.errors, out.skipped, out.no_row_yet, out.not_in_cohort)),
        )
        for number, out in enumerate(report.fall_outs)
    ]
    narratives = report.levels[0]
    n_out, n_unlabelled = report.n_narratives - narratives.n_common, narratives.n_common - narratives.n_compared
    return [
        *aligned([header, *rows], right=frozenset(range(1, 6))),
        f"Of {report.n_narratives:,} narratives {narratives.n_common:,} are answered by all; {n_out:,} fall out.",
        f"Of those, {narratives.n_compared:,} have a label ({printable(report.labels)}), {n_unlabelled:,} have none.",
    ]


def _standing_lines(level: LevelComparison) -> list[str]:
    header = ("", "TP, FP, FN, TN", "sensitivity", "specificity", "PPV", "F1", "kappa")
    rows = [
        (_name(number), _cells_text(one), *map(brief_text, _standing_measures(one)))
        for number, one in enumerate(level.standings)
    ]
    return aligned([header, *rows])


def _standing_measures(standing: Standing) -> Sequence[Measure]:
    performance = standing.performance
    return performance.sensitivity, performance.specificity, performance.ppv, performance.f1, standing.kappa


def _cells_text(standing: Standing) -> str:
    table = standing.confusion
    return ", ".join(map(count_text, (table.tp, table.fp, table.fn, table.tn)))


def _luck_lines(luck: Luck) -> list[str]:
    lines = [
        f"{luck.n_configurations:,} experiments of this database were judged on labels of this file.",
        f"Were {luck.n_configurations:,} configurations equally good, the best would by luck alone lie "
        f"{luck.expected_lead:.3f} of F1 above their mean",
        f"(one varies by {luck.spread:.3f} when the cases are drawn again). Here the best lies "
        f"{luck.observed_lead:.3f} above the mean of those shown.",
    ]
    if luck.n_configurations >= MANY_CONFIGURATIONS:
        lines.append(
            "WARNING: the best of many looks better than it is. Judge it once more, on labels that no choice has seen."
        )
    return lines


def _matrix_lines(report: ComparisonReport) -> list[str]:
    """A row an experiment by the settings in which they differ; of two settings also a table of F1."""
    narratives = report.levels[0]
    keys = list(report.varying[:MOST_COLUMNS])
    order = sorted(range(len(report.contenders)), key=lambda number: _rank(narratives.standings[number]))
    header = (*keys, "", "F1", "sensitivity", "specificity")
    rows = []
    for number in order:
        performance = narratives.standings[number].performance
        measures = (performance.f1, performance.sensitivity, performance.specificity)
        settings = report.contenders[number].settings
        rows.append((*(settings.get(key, NOT_SET) for key in keys), _name(number), *map(brief_text, measures)))
    lines = aligned([header, *rows])
    if len(report.varying) > MOST_COLUMNS:
        lines.append(f"they differ in {len(report.varying) - MOST_COLUMNS} more settings: --json has all of them")
    if len(report.varying) == 2:
        lines += ["", f"F1 by {keys[0]} (rows) and {keys[1]} (columns):", *_cross_table(report, keys[0], keys[1])]
    return lines


def _cross_table(report: ComparisonReport, row_key: str, column_key: str) -> list[str]:
    cells: dict[tuple[str, str], list[str]] = {}
    for contender, standing in zip(report.contenders, report.levels[0].standings, strict=True):
        place = (contender.settings.get(row_key, NOT_SET), contender.settings.get(column_key, NOT_SET))
        cells.setdefault(place, []).append(fraction_text(standing.performance.f1.value))
    row_values, column_values = (sorted({place[side] for place in cells}) for side in (0, 1))
    rows = [(one, *(", ".join(cells.get((one, other), ["-"])) for other in column_values)) for one in row_values]
    return aligned([("", *column_values), *rows])


def _rank(standing: Standing) -> float:
    """Best first; undefined last."""
    value = standing.performance.f1.value
    return 1.0 if value is None else -value


def _pair_lines(level: LevelComparison) -> list[str]:
    lines = _agreement_table(level.pairs)
    repeated = [pair for pair in level.pairs if pair.is_repetition]
    if repeated:
        flipped = ", ".join(f"{_pair_name(pair)} {_flips_text(pair)}" for pair in repeated)
        lines.append(f"Repetitions of the same question (test-retest), answers that flipped: {flipped}.")
    if level.n_compared:
        lines += ["", *_difference_table(level.pairs), "", *_test_table(level.pairs)]
    return lines


def _pair_name(pair: PairComparison) -> str:
    return f"{_name(pair.first)}-{_name(pair.second)}"


def _flips_text(pair: PairComparison) -> str:
    table = pair.agreement.table
    n_flipped = table.fp + table.fn
    share = 100 * n_flipped / table.n_units if table.n_units else 0.0
    return f"{count_text(n_flipped)} of {table.n_units:,} ({share:.2f} %)"


def _agreement_table(pairs: Sequence[PairComparison]) -> list[str]:
    header = ("answers", "", "agreement", "of", "kappa", "AC1", "both yes", "first only", "second only")
    rows = [
        (
            _pair_name(pair),
            "again" if pair.is_repetition else "",
            brief_text(pair.agreement.observed),
            parts_text(pair.agreement.observed),
            brief_text(pair.agreement.kappa),
            brief_text(pair.agreement.ac1),
            *map(count_text, (pair.agreement.table.tp, pair.agreement.table.fp, pair.agreement.table.fn)),
        )
        for pair in pairs
    ]
    return aligned([header, *rows], right=frozenset({3, 6, 7, 8}))


def _difference_table(pairs: Sequence[PairComparison]) -> list[str]:
    header = ("difference", "F1", "", "sensitivity", "", "specificity", "")
    rows = []
    for pair in pairs:
        cells = [_pair_name(pair)]
        for measure in (pair.f1, pair.sensitivity, pair.specificity):
            cells += [_signed(measure.value), interval_text(measure.interval)]
        rows.append(tuple(cells))
    return aligned([header, *rows], right=frozenset({1, 3, 5}))


def _signed(value: float | None) -> str:
    return "undefined" if value is None else f"{value:+.3f}"


def _test_table(pairs: Sequence[PairComparison]) -> list[str]:
    """Exact McNemar: on how many cases only one of two is right, and p after Holm over the pairs shown."""
    header = ("right alone", "all labelled", "p", "Holm", "labelled yes", "p", "Holm", "labelled no", "p", "Holm")
    rows = []
    for pair in pairs:
        cells = [_pair_name(pair)]
        for test in (pair.right, pair.found, pair.spared):
            cells += _test_cells(test)
        rows.append(tuple(cells))
    return aligned([header, *rows], right=frozenset({1, 4, 7}))


def _test_cells(test: PairedTest) -> list[str]:
    return [f"{test.only_first:,} : {test.only_second:,}", p_text(test.p), p_text(test.p_holm)]


def _discordant_lines(report: ComparisonReport) -> list[str]:
    if not report.n_discordant:
        return ["none: all say the same of every common narrative"]
    names = [_name(number) for number in range(len(report.contenders))]
    rows = [("incident", "type", "label", *names), *map(_discordant_row, report.discordant)]
    lines = aligned(rows) if report.discordant else []
    n_more = report.n_discordant - len(report.discordant)
    return [*lines, f"and {n_more:,} more: --limit shows them"] if n_more else lines


def _discordant_row(case: DiscordantCase) -> tuple[str, ...]:
    label = "-" if case.label is None else _yes_no(case.label)
    return (case.incident_id, case.narrative_type, label, *map(_yes_no, case.answers))


def _yes_no(says_yes: bool) -> str:
    return "yes" if says_yes else "no"


def _legend(report: ComparisonReport) -> list[str]:
    resamples = f"{report.n_resamples:,} resamples, seed {report.seed}" if report.n_resamples else "no resamples"
    n_pairs: Mapping[Level, int] = {level.level: len(level.pairs) for level in report.levels}
    return [
        f"b = bootstrap of incidents ({resamples}); differences are first minus second, paired on the same cases.",
        f"Holm's p allows for {max(n_pairs.values())} comparisons. McNemar takes narratives for independent: where an",
        "incident has two, trust the test of incidents. docs/metrics.md says what each number means.",
    ]
