"""`narrun doctor` and `narrun estimate` against a server that people run: they look, they tell, they write nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import Workplace
from questions import write_config
from serving import LlamaServer


@pytest.fixture
def config(workplace: Workplace, server: LlamaServer) -> Path:
    return write_config(workplace, server.url, narratives=40)


def test_doctor_finds_a_server_that_binds_answers_to_a_schema_and_has_a_model_of_another_name(
    workplace: Workplace, config: Path, model: Path
) -> None:
    told = workplace.run("doctor", config).expect(0)

    assert "answered a request for one token" in told.out
    assert "structured output: json_schema is supported" in told.out
    assert f"asked for the model test-model, answered by one that calls itself {model}" in " ".join(told.out.split())
    assert not workplace.database.exists()


def test_auto_finds_that_a_schema_is_obeyed(workplace: Workplace, server: LlamaServer) -> None:
    config = workplace.write_config(
        url=server.url,
        narratives=workplace.write_narratives(1),
        model__response_format="auto",
        model__max_tokens=30,
        run__max_attempts=1,
    )
    # what noise makes of the answer itself is no matter here
    told = workplace.run("estimate", config, "-k", "1").expect(0)
    assert "bound to json_schema, which the endpoint was found to obey" in told.err


def test_doctor_tells_a_server_that_is_down_from_one_that_wants_another_key(
    workplace: Workplace, config: Path, server: LlamaServer, model: Path
) -> None:
    server.kill()
    assert "cannot be reached" in workplace.run("doctor", config).expect(75).out

    with LlamaServer(model, workplace.directory / "locked", api_key="sesame-1f0c9d3e7b") as locked:
        config = write_config(workplace, locked.url, narratives=40)
        refused = workplace.run("doctor", config).expect(78)
    assert "HTTP 401" in refused.out and "set the right key" in refused.out


def test_estimate_sends_eight_and_foretells_forty_and_writes_nothing(workplace: Workplace, config: Path) -> None:
    told = workplace.run("estimate", config).expect(0)

    said = " ".join(told.out.split())
    assert "sample 8 narratives, 0 of them errors remaining 40 narratives" in said
    assert "with 4 calls in flight" in said
    assert "nothing was stored" in told.err
    assert not workplace.database.exists()


def test_what_estimate_keeps_is_the_beginning_of_the_experiment(workplace: Workplace, config: Path) -> None:
    workplace.run("estimate", config, "--keep").expect(75)
    kept = workplace.rows()
    assert len(kept) == 8

    workplace.run("resume").expect(0)

    rows = workplace.rows()
    assert len(rows) == 40
    assert {key: rows[key] for key in kept} == kept
