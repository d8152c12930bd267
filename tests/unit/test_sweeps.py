"""Promises of sweeps as files and as tables: every combination once, told apart, and nothing that would mislead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrun_async.config.sweeps import AXES, SweepCell, expand_sweep, label_of, parse_sweep, sweep_sha256
from narrun_async.errors import ConfigurationError
from narrun_async.metrics import ConfusionCounts, compute_metrics
from narrun_async.models import ExperimentStatus, ResultCounts
from narrun_async.reporting.summary import ExperimentSummary
from narrun_async.reporting.sweep_lines import SweepRow, ranking_lines
from narrun_async.sources.yaml_file import load_yaml, text_reader

ROOT = Path(__file__).resolve().parents[2]
BASE: Mapping[str, Any] = {
    "experiment": {"name": "base", "author": "tests"},
    "model": {"name": "m", "provider": "vllm", "api_url": "http://localhost/v1", "temperature": 0.5},
    "prompt": {"version": "v1", "system_prompt_file": "base.txt", "user_template": "Read: <<TEXT>>"},
    "data": {"file": "data/x.xlsx"},
    "run": {"seed": 1, "concurrency": 3},
}
TEXTS = {"base.txt": "of the base", "a/one.txt": "first", "a/two.txt": "second", "b/one.txt": "other first"}


def document(matrix: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return {"sweep": {"name": "s"}, "base": "base.yaml", "matrix": matrix} | changes


def expanded(
    matrix: Mapping[str, Any],
    *,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> list[SweepCell]:
    return expand_sweep(
        parse_sweep(document(matrix), origin="s.yaml"),
        BASE,
        read_base_text=TEXTS.__getitem__,
        read_text=TEXTS.__getitem__,
        origin="s.yaml",
        environment=environment or {},
        overrides=overrides or {},
    )


def refusal(raw: Mapping[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_sweep(raw, origin="s.yaml")
    return str(caught.value)


def test_every_combination_is_an_experiment_and_the_last_axis_changes_fastest() -> None:
    cells = expanded({"model": {"temperature": [0.0, 1.0]}, "run": {"seed": [1, 2]}})
    assert [(cell.config.model.temperature, cell.config.run.seed) for cell in cells] == [
        (0.0, 1), (0.0, 2), (1.0, 1), (1.0, 2)
    ]  # fmt: skip
    assert [cell.config.experiment.name for cell in cells] == [
        "s 1: temperature=0.0, seed=1",
        "s 2: temperature=0.0, seed=2",
        "s 3: temperature=1.0, seed=1",
        "s 4: temperature=1.0, seed=2",
    ]
    assert {cell.config.experiment.author for cell in cells} == {"tests"}
    assert {cell.config.operational.concurrency for cell in cells} == {3}


def test_a_prompt_file_takes_the_place_of_the_prompt_of_the_base_and_gives_its_version() -> None:
    cells = expanded({"prompt": {"system_prompt_file": ["a/one.txt", "a/two.txt"]}})
    assert [(cell.config.prompt.system_prompt, cell.config.prompt.version) for cell in cells] == [
        ("first", "one"), ("second", "two")
    ]  # fmt: skip
    assert [cell.settings for cell in cells] == [
        {"prompt.system_prompt_file": "one"}, {"prompt.system_prompt_file": "two"}
    ]  # fmt: skip


def test_flags_hold_for_all_experiments() -> None:
    cells = expanded({"run": {"seed": [1, 2]}}, overrides={"run.concurrency": 9})
    assert {cell.config.operational.concurrency for cell in cells} == {9}


def test_a_variable_that_would_flatten_an_axis_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="LLM_MODEL is set"):
        expanded({"model": {"name": ["m1", "m2"]}}, environment={"LLM_MODEL": "m3"})
    cells = expanded({"run": {"seed": [1, 2]}}, environment={"LLM_MODEL": "m3"})
    assert {cell.config.model.name for cell in cells} == {"m3"}


@pytest.mark.parametrize(
    ("matrix", "sentence"),
    [
        ({"run": {"seed": [1, 2, 1]}}, "(seed=1) comes twice"),
        ({"prompt": {"system_prompt_file": ["a/one.txt", "b/one.txt"]}}, "give prompt files different names"),
        ({"model": {"temperature": [1, 1.0]}}, "(temperature=1) and (temperature=1.0) are the same experiment"),
        ({"model": {"temperature": [0.0, 3.0]}}, "s.yaml (temperature=3.0): `model.temperature` must be at most 2"),
        ({"prompt": {"system_prompt_file": [7]}}, "must be a list of file names"),
    ],
)
def test_experiments_that_are_none_or_the_same_are_refused(matrix: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        expanded(matrix)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (document({}), "`matrix` must hold sections with lists"),
        (document({"model": {"temperature": []}}), "`matrix.model.temperature` must be a list of values"),
        (document({"model": {"temperature": 0.2}}), "`matrix.model.temperature` must be a list of values"),
        (document({"model": [0.2]}), "`matrix.model` must be a section"),
        (document({"model": {"temprature": [0.2]}}), "did you mean `model.temperature`?"),
        (document({"model": {"api_url": ["http://a/v1"]}}), "`matrix.model.api_url` cannot differ within a sweep"),
        (document({"data": {"file": ["a", "b"]}}), "`matrix.data.file` cannot differ within a sweep"),
        (document({"run": {"seed": [1]}}, sweeps={}), "unknown key `sweeps`"),
        (document({"run": {"seed": [1]}}, base=3), "`base` must be the name of a configuration file"),
        (document({"run": {"seed": [1]}}, sweep={"name": "two\nlines"}), "`sweep.name` must be one line"),
        (document({"run": {"seed": [1]}}, sweep={"title": "x"}), "`sweep` must be a section with `name`"),
        (document({"run": {"seed": [*range(1001)]}}), "1,001 experiments"),
        (document({"\x1b[31m": {}, "x\x1b": 3}), "`matrix.x�` must be a section"),
    ],
)
def test_a_file_that_is_no_sweep_is_refused_in_one_sentence(raw: Mapping[str, Any], sentence: str) -> None:
    assert refusal(raw).startswith("s.yaml: ")
    assert sentence in refusal(raw)


keys = st.sampled_from([*(axis.partition(".")[2] for axis in AXES), "model", "prompt", "run", "x"]) | st.text(
    max_size=4
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["sweep", "base", "matrix", "more"]), values))
def test_any_document_ends_as_a_sweep_or_as_one_sentence(raw: dict[str, Any]) -> None:
    sentence = "s.yaml: "
    try:
        parse_sweep(raw, origin="s.yaml")
    except ConfigurationError as error:
        sentence = str(error)
    assert sentence.startswith("s.yaml: ") and sentence.isprintable()


def test_a_sweep_is_known_by_what_it_runs_and_not_by_how() -> None:
    def known(matrix: Mapping[str, Any], **options: Any) -> str:
        return sweep_sha256(parse_sweep(document(matrix), origin="s.yaml"), expanded(matrix, **options))

    matrix = {"model": {"temperature": [0.0, 1.0]}}
    assert known(matrix) == known(matrix, overrides={"run.concurrency": 9})
    assert known(matrix) != known({"model": {"temperature": [1.0, 0.0]}})
    assert known(matrix) != known({"model": {"temperature": [0.0, 1.5]}})


def test_keys_of_two_sections_are_told_apart_by_the_section() -> None:
    assert label_of({"model.seed": "1", "run.seed": "2", "model.top_p": "0.5"}) == "model.seed=1, run.seed=2, top_p=0.5"


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "sweeps").glob("*.yaml")), ids=lambda path: path.name)
def test_a_shipped_sweep_can_be_expanded(path: Path) -> None:
    shipped = parse_sweep(load_yaml(path), origin=path.name)
    base = path.parent / shipped.base
    cells = expand_sweep(
        shipped,
        load_yaml(base),
        read_base_text=text_reader(base.parent),
        read_text=text_reader(path.parent),
        origin=path.name,
        environment={},
        overrides={},
    )
    assert len(cells) == shipped.n_experiments > 1


def row(position: int, temperature: str, *, tp: int, fp: int = 0, fn: int = 0, tn: int = 0) -> SweepRow:
    confusion = ConfusionCounts(tp=tp, fp=fp, fn=fn, tn=tn)
    n_rows = max(confusion.n_labelled, 1)
    return SweepRow(
        experiment_id=f"{position:08d}-0000-4000-8000-000000000000",
        position=position,
        settings={"model.temperature": temperature},
        status=ExperimentStatus.COMPLETED,
        summary=ExperimentSummary(
            counts=ResultCounts(n_total=n_rows, n_success=n_rows, n_errors=0),
            confusion=confusion,
            metrics=compute_metrics(confusion),
            n_detected=tp + fp,
            n_not_detected=fn + tn,
            errors={},
            prompt_tokens=1,
            completion_tokens=1,
        ),
    )


def first_words(lines: list[str]) -> list[str]:
    return [" ".join(line.split()[:2]) for line in lines[1:] if line.split()[0].isdecimal()]


def test_the_best_f1_comes_first_equal_ones_share_a_place_and_what_has_none_comes_last() -> None:
    rows = [row(1, "0.1", tp=5, fn=5), row(2, "0.2", tp=9, fn=1), row(3, "0.3", tp=9, fp=1), row(4, "0.4", tp=0, tn=3)]
    lines = ranking_lines(rows, simulated=False)
    assert first_words(lines)[:4] == ["1 0.2", "1 0.3", "3 0.1", "4 0.4"]
    assert "judged on the same 10 labelled narratives (10 positive)" in " ".join(lines)
    assert "partly luck" in " ".join(lines)


def test_without_labels_nothing_is_ranked() -> None:
    lines = ranking_lines([row(2, "0.2", tp=0), row(1, "0.1", tp=0)], simulated=True)
    assert first_words(lines) == ["1 0.1", "2 0.2"]
    assert "no narrative has a manual label" in " ".join(lines)
    assert "SIMULATED" in lines[-1]
