"""`narrun migrate-config` as a person calls it: the YAML on standard output, the rest on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from doorway import Doorway, open_doorway
from harness import Workplace

pytestmark = pytest.mark.crash


@pytest.fixture(scope="module")
def door() -> Iterator[Doorway]:
    with open_doorway() as doorway:
        yield doorway


OLD = """\
experiment: {name: exp_042, author: A, notes: n}
model: {name: m, provider: lmstudio, api_url: "http://localhost:1234/v1/chat/completions", temperature: 0.2}
prompt:
  version: 1.0
  system_prompt: |
    A canary sang.
  user_template: "<<TEXT>>"
data: {file: narratives.csv}
run: {seed: 1, batch_size: 100, save_incremental: true}
"""


def test_the_new_form_runs_and_the_old_one_says_what_is_wrong_with_it(door: Doorway, workplace: Workplace) -> None:
    workplace.write_narratives(4)
    old = workplace.directory / "old.yaml"
    old.write_text(OLD)
    refused = door.run(workplace, "run", "old.yaml", "--dry-run").expect(78)
    assert "`prompt.version` must be text (in quotes" in refused.err

    told = door.run(workplace, "migrate-config", "old.yaml").expect(0)
    assert told.out.startswith("# Written by `narrun migrate-config` from old.yaml")
    assert "the old form is refused as it is: old.yaml: `prompt.version` must be text" in told.err
    assert "`run.batch_size` left out: no effect" in told.err
    assert "canary" not in told.err
    (workplace.directory / "new.yaml").write_text(told.out)
    assert "4 of 4 narratives" in door.run(workplace, "run", "new.yaml", "--dry-run").expect(0).err
    assert old.read_text() == OLD


def test_it_writes_files_whole_and_replaces_none_unasked(door: Doorway, workplace: Workplace) -> None:
    (workplace.directory / "old.yaml").write_text(OLD)
    flags = ("migrate-config", "old.yaml", "-o", Path("new/exp.yaml"), "--prompt-dir", "new/prompts")
    told = door.run(workplace, *flags).expect(0)
    assert told.out == ""
    assert "written: new/exp.yaml" in told.err
    assert sorted(path.name[:5] for path in (workplace.directory / "new").rglob("*.*")) == ["exp.y", "syste", "user-"]
    assert "is there already" in door.run(workplace, *flags).expect(2).err
    door.run(workplace, *flags, "--force").expect(0)
    assert (
        "is only read" in door.run(workplace, "migrate-config", "old.yaml", "-o", "old.yaml", "--force").expect(2).err
    )
    assert "there is no such file" in door.run(workplace, "migrate-config", "none.yaml").expect(78).err
    assert (workplace.directory / "old.yaml").read_text() == OLD
