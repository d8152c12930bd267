"""`narrun migrate-config`: the new form says what the old one says, byte for byte in the prompts, or says where not."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from narrun_async.app.migrating import NewForm, migrate_config
from narrun_async.config import ExperimentConfig, parse_config, snapshot_json
from narrun_async.errors import ConfigurationError, StorageError, UsageError
from narrun_async.sources.yaml_file import load_yaml, parse_yaml, text_reader
from narrun_async.sources.yaml_text import write_yaml

OLD = """\
experiment:
  name: exp_042
  author: A. Uthor
  notes: of the predecessor
model:
  name: openai/gpt-oss-120b
  provider: lmstudio
  api_url: http://localhost:1234/v1/chat/completions
  temperature: 0.2
prompt:
  version: "1.0"
  system_prompt: |
      You are a careful reader.
        Indented more, with blanks at the end.  

      Answer in JSON.
  user_template: "Text: <<TEXT>>"
data:
  file: data/cases.xlsx
run:
  seed: 1024
  max_narratives: null
  save_incremental: yes
  save_csv_json: no
  batch_size: 100
  resume_enabled: true
  progress_tracking: true
  database: data/experiments.db
"""  # noqa: W291 - blanks at the end of a line are what is tested
SYSTEM = "You are a careful reader.\n  Indented more, with blanks at the end.  \n\nAnswer in JSON.\n"


def load(path: Path) -> ExperimentConfig:
    return parse_config(load_yaml(path), read_text=text_reader(path.parent), origin=str(path), environment={})


def migrated(
    directory: Path, old: str = OLD, *, environment: Mapping[str, str] | None = None, **options: Any
) -> tuple[NewForm, Path]:
    source, target = directory / "old.yaml", directory / "new.yaml"
    source.write_text(old, encoding="utf-8")
    form = migrate_config(
        source, environment or {}, **{"output": target, "prompt_dir": None, "overwrite": False} | options
    )
    assert source.read_text(encoding="utf-8") == old
    return form, target


def changed(old: str, new: str) -> str:
    assert OLD.count(old) == 1, old
    return OLD.replace(old, new)


# --- what it writes ---------------------------------------------------------------------------------------------------


def test_a_configuration_of_the_predecessor_keeps_every_setting_and_its_prompts_as_blocks(tmp_path: Path) -> None:
    form, target = migrated(tmp_path)
    assert snapshot_json(load(target)) == snapshot_json(load(tmp_path / "old.yaml"))
    assert load(target).operational == load(tmp_path / "old.yaml").operational
    assert load(target).prompt.system_prompt == SYSTEM
    text = target.read_text(encoding="utf-8")
    assert "  system_prompt: |\n    You are a careful reader.\n      Indented more, with blanks at the end.  \n" in text
    assert form.remarks[0].startswith("old and new form say the same, read back and compared (settings ")
    assert text == form.text


def test_keys_without_effect_become_comments_with_the_reason_at_the_end_of_their_section(tmp_path: Path) -> None:
    form, _ = migrated(tmp_path)
    assert form.text.endswith(
        "  database: data/experiments.db\n"
        "  # save_incremental: yes (no effect: every row is saved as soon as its answer is there)\n"
        "  # batch_size: 100 (no effect: rows are committed in small groups by themselves)\n"
        "  # resume_enabled: true (no effect: every run can be resumed)\n"
        "  # progress_tracking: true (no effect: progress is always tracked)\n"
    )
    assert [line for line in form.remarks if "left out" in line][1].startswith("`run.batch_size` left out: no effect")


def test_the_new_form_of_the_new_form_is_the_new_form(tmp_path: Path) -> None:
    once, target = migrated(tmp_path)
    again = migrate_config(target, {}, output=None, prompt_dir=None, overwrite=False)
    without_comments = [line for line in once.text.splitlines() if not line.lstrip().startswith("#")]
    assert [line for line in again.text.splitlines() if not line.lstrip().startswith("#")] == without_comments


def test_prompts_in_files_are_shared_by_configurations_that_have_the_same(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts"
    for number in range(3):
        version = changed("exp_042", f"exp_{number}").replace('"1.0"', f'"1.{number}"')
        form, target = migrated(tmp_path, version, output=tmp_path / "new" / f"{number}.yaml", prompt_dir=prompts)
        assert load(tmp_path / "new" / f"{number}.yaml").prompt.system_prompt == SYSTEM
        assert "system_prompt_file: ../prompts/system-" in form.text
        assert "careful" not in form.text
    assert len(list(prompts.iterdir())) == 2
    other = changed("careful", "careless")
    migrated(tmp_path, other, output=tmp_path / "new" / "other.yaml", prompt_dir=prompts)
    assert sorted(path.name.split("-")[0] for path in prompts.iterdir()) == ["system", "system", "user"]
    assert not target.exists()


def test_a_prompt_that_no_text_file_would_keep_stays_where_it_is(tmp_path: Path) -> None:
    old = changed('"Text: <<TEXT>>"', '"Text:\\r\\n<<TEXT>>"')
    form, target = migrated(tmp_path, old, prompt_dir=tmp_path / "prompts")
    assert load(target).prompt.user_template == "Text:\r\n<<TEXT>>"
    assert any("`prompt.user_template` stays in the new form" in line for line in form.remarks)


def test_a_prompt_file_whose_text_is_not_that_of_its_name_is_not_replaced(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts"
    migrated(tmp_path, prompt_dir=prompts)
    file = next(prompts.glob("system-*"))
    file.write_text("edited")
    with pytest.raises(UsageError, match="does not hold the prompt that its name stands for"):
        migrated(tmp_path, prompt_dir=prompts, overwrite=True)
    assert file.read_text() == "edited"


def test_names_of_prompt_files_are_seen_from_where_the_new_form_lies(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "u.txt").write_text("file: <<TEXT>>")
    old = changed('user_template: "Text: <<TEXT>>"', "user_template_file: prompts/u.txt")
    form, _ = migrated(tmp_path, old, output=tmp_path / "deep" / "er" / "new.yaml")
    assert "user_template_file: ../../prompts/u.txt" in form.text
    assert load(tmp_path / "deep" / "er" / "new.yaml").prompt.user_template == "file: <<TEXT>>"


# --- what it puts right, and what it leaves to a person ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "key", "read"),
    [
        ('version: "1.0"', "version: 1.10", "prompt.version", lambda config: config.prompt.version == "1.10"),
        ('version: "1.0"', "version: 2024-01-31", "prompt.version", lambda c: c.prompt.version == "2024-01-31"),
        ("name: exp_042", "name: 42", "experiment.name", lambda config: config.experiment.name == "42"),
        ("temperature: 0.2", 'temperature: "0.2"', "model.temperature", lambda c: c.model.temperature == 0.2),
        ("temperature: 0.2", "temperature: 2e-1", "model.temperature", lambda c: c.model.temperature == 0.2),
        ("seed: 1024", 'seed: "1024"', "run.seed", lambda config: config.run.seed == 1024),
        ("max_narratives: null", "max_narratives: 404.0", "run.max_narratives", lambda c: c.run.max_narratives == 404),
        ("save_csv_json: no", 'save_csv_json: "TRUE"', "run.save_csv_json", lambda c: c.operational.save_csv_json),
        ("provider: lmstudio", "provider: my box", "model.provider", lambda c: c.model.provider == "openai-compatible"),
    ],
)
def test_what_was_meant_beyond_doubt_is_put_right_and_said(
    tmp_path: Path, old: str, new: str, key: str, read: Any
) -> None:
    form, target = migrated(tmp_path, changed(old, new))
    assert read(load(target))
    assert form.remarks[0].startswith("the old form is refused as it is: ")
    (said,) = [line for line in form.remarks if "changed: " in line]
    assert said.startswith(f"`{key}` changed: ")
    assert f"  # {said.partition('changed: ')[2]}\n  {key.partition('.')[2]}: " in form.text
    expected = parse_yaml(OLD, origin="old")
    found = parse_yaml(form.text, origin="new")
    section, _, name = key.partition(".")
    for document in (expected, found):
        document[section].pop(name)  # type: ignore[attr-defined]
    for legacy in ("save_incremental", "batch_size", "resume_enabled", "progress_tracking"):
        expected["run"].pop(legacy)  # type: ignore[attr-defined]
    assert found == expected


def test_a_key_is_left_out_with_advice_and_written_nowhere(tmp_path: Path) -> None:
    form, _ = migrated(tmp_path, changed("  temperature: 0.2", "  temperature: 0.2\n  api_key: sk-canary"))
    assert "canary" not in form.text + "".join(form.remarks)
    assert "  # api_key: no such key; a key is never written into a configuration" in form.text


def test_a_key_that_had_no_effect_does_not_get_one_by_moving(tmp_path: Path) -> None:
    form, target = migrated(tmp_path, changed("  seed: 1024", "  seed: 1024\n  max_tokens: 300"))
    assert load(target).model.max_tokens is None
    assert "  # max_tokens: no such key; did you mean `model.max_tokens`?" in form.text


def test_variables_are_filled_in_as_today_except_in_prompts_urls_and_where_they_sound_secret(tmp_path: Path) -> None:
    old = changed("data/cases.xlsx", "${DIR_OF_TEST}/cases.xlsx").replace("Text:", "Text ${DIR_OF_TEST}:")
    old = old.replace("localhost:1234", "${HOST_OF_TEST}")
    form, target = migrated(tmp_path, old, environment={"DIR_OF_TEST": "d", "HOST_OF_TEST": "h"})
    config = load(target)
    assert config.data.file == "d/cases.xlsx"
    assert config.model.api_url == "http://${HOST_OF_TEST}/v1/chat/completions"
    assert config.prompt.user_template == "Text ${DIR_OF_TEST}: <<TEXT>>"
    assert any("the R pipeline filled variables in" in line for line in form.remarks)

    secret = changed("of the predecessor", "${OPENAI_API_KEY}")
    with pytest.raises(ConfigurationError, match=r"`experiment.notes` uses \$\{OPENAI_API_KEY\}"):
        migrated(tmp_path, secret, environment={"OPENAI_API_KEY": "sk-canary"}, overwrite=True)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("data/cases.xlsx", "${NOT_SET}/cases.xlsx", r"`data.file` uses \$\{NOT_SET\}"),
        ("temperature: 0.2", "temperature: 3", "`model.temperature` must be at most 2"),
        ("<<TEXT>>", "<TEXT>", "`prompt.user_template` must contain <<TEXT>>"),
        ("data:\n  file: data/cases.xlsx\n", "", "section `data` is missing"),
        ("data:\n  file: data/cases.xlsx\n", "data: nothing\n", "`data` must be a section"),
    ],
)
def test_what_only_a_person_can_put_right_is_said_and_nothing_written(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"old.yaml, brought into the new form: .*{said}"):
        migrated(tmp_path, changed(old, new), prompt_dir=tmp_path / "prompts")
    assert [path.name for path in tmp_path.iterdir()] == ["old.yaml"]


def test_an_empty_section_is_put_right(tmp_path: Path) -> None:
    old = OLD[: OLD.index("run:")] + "run:\n"
    form, target = migrated(tmp_path, old)
    assert load(target).run.seed is None
    assert "# the section was empty, and has to be a mapping\nrun: {}\n" in form.text


def test_an_address_beyond_this_machine_is_noted_because_a_run_will_not_call_it(tmp_path: Path) -> None:
    form, _ = migrated(tmp_path, changed("http://localhost:1234", "https://api.example.org"))
    assert any("api.example.org" in line and "privacy.allow_remote" in line for line in form.remarks)
    near, _ = migrated(tmp_path, changed("localhost:1234", "192.168.1.5:1234"), overwrite=True)
    assert not any("allow_remote" in line for line in near.remarks)


def test_an_address_that_the_environment_gives_is_not_missed(tmp_path: Path) -> None:
    form, _ = migrated(tmp_path, changed("  api_url: http://localhost:1234/v1/chat/completions\n", ""))
    assert "api_url" not in form.text


# --- files ------------------------------------------------------------------------------------------------------------


def test_an_existing_file_is_replaced_only_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        migrated(tmp_path)
    assert (tmp_path / "new.yaml").read_text() == "mine"
    migrated(tmp_path, overwrite=True)
    assert load(tmp_path / "new.yaml").experiment.name == "exp_042"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.yaml", "old.yaml"]


def test_the_new_form_takes_the_place_of_no_device_and_a_name_that_cannot_be_is_said(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for target, kind in ((tmp_path, "a directory"), (pipe, "no regular file")):
        with pytest.raises(UsageError, match=f"is {kind}; name a file with --output"):
            migrated(tmp_path, output=target, overwrite=True)
    with pytest.raises(StorageError, match="cannot be written: File name too long"):
        migrated(tmp_path, output=tmp_path / ("x" * 300))
    assert pipe.is_fifo()


@pytest.mark.parametrize("way", ["same", "link", "hard link"])
def test_the_old_file_is_never_written_to_by_whatever_name(tmp_path: Path, way: str) -> None:
    source = tmp_path / "old.yaml"
    source.write_text(OLD)
    target = source if way == "same" else tmp_path / "other.yaml"
    if way == "link":
        target.symlink_to(source)
    elif way == "hard link":
        target.hardlink_to(source)
    with pytest.raises(UsageError, match="is only read"):
        migrated(tmp_path, output=target, overwrite=True)


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--prompt-dir needs --output"):
        migrated(tmp_path, output=None, prompt_dir=tmp_path / "prompts")
    with pytest.raises(UsageError, match="is a directory"):
        migrated(tmp_path, output=tmp_path)


# --- any configuration ------------------------------------------------------------------------------------------------

#: what a YAML file can hold: no surrogates, no NUL
texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=40)
blocks = st.lists(st.text(st.sampled_from(" \tab#:-|>'\"{}[]%&*!é,?"), max_size=8), max_size=6).map("\n".join)
prose = (texts | blocks).filter(str.strip)
line = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=20).filter(str.strip)
without_variables = line.filter(lambda text: "${" not in text)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6) | without_variables,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(without_variables, inner, max_size=3),
    max_leaves=5,
)
configurations = st.fixed_dictionaries(
    {
        "experiment": st.fixed_dictionaries(
            {"name": without_variables}, optional={"notes": prose.filter(lambda text: "${" not in text)}
        ),
        "model": st.fixed_dictionaries(
            {
                "name": without_variables,
                "provider": st.sampled_from(["lmstudio", "LM Studio", "azure"]),
                "api_url": st.sampled_from(["http://localhost:1234/v1/chat/completions", "http://${HOST}/v1"]),
                "temperature": st.floats(0, 2),
            },
            optional={
                "max_tokens": st.integers(1, 10**6),
                "seed": st.integers(0, 2**63 - 1),
                "response_format": st.sampled_from([False, "auto", "json_schema"])
                | st.dictionaries(without_variables, json_values, max_size=3),
                "headers": st.just({"X-Team": "${TEAM}"}),
                "body": st.dictionaries(st.sampled_from(["top_k", "zeta", "alpha"]), json_values, max_size=3),
            },
        ),
        "prompt": st.fixed_dictionaries(
            {"version": without_variables, "user_template": (texts | blocks).map(lambda text: f"{text}<<TEXT>>{text}")},
            optional={"system_prompt": prose},
        ),
        "data": st.just({"file": "data/cases.xlsx"}),
        "run": st.fixed_dictionaries(
            {},
            optional={
                "seed": st.none() | st.integers(0, 10**9),
                "max_narratives": st.none() | st.integers(1, 10**6),
                "concurrency": st.sampled_from([1, 64, "auto"]),
                "save_csv_json": st.booleans(),
                "batch_size": st.integers() | st.just("many"),
                "resume_enabled": st.booleans(),
            },
        ),
    },
    optional={"privacy": st.just({"allow_remote": True, "approval_note": "one\ntwo"})},
)


@example(document=yaml.safe_load(OLD), in_files=True)
@given(document=configurations, in_files=st.booleans())
@settings(max_examples=60)
def test_any_configuration_says_the_same_in_its_new_form(document: dict[str, Any], in_files: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        source, target = directory / "old.yaml", directory / "new" / "new.yaml"
        source.write_bytes(yaml.safe_dump(document, allow_unicode=True, sort_keys=False).encode())
        before, digest = load(source), source.read_bytes()
        prompts = directory / "prompts" if in_files else None
        form = migrate_config(source, {}, output=target, prompt_dir=prompts, overwrite=False)
        after = load(target)
        assert snapshot_json(after) == snapshot_json(before)
        assert after.operational == before.operational
        assert after.prompt == before.prompt
        assert source.read_bytes() == digest
        assert form.remarks[0].startswith("old and new form say the same")


@given(text=texts | blocks, value=json_values)
@settings(max_examples=200)
def test_any_text_and_any_value_comes_back_from_yaml(text: str, value: object) -> None:
    document = {"one": {"text": text, "value": value}, "two": {"text": text}}
    written = write_yaml(document, heading=text, comments={"one.text": [text], "two.gone": [text], "three": [text]})
    assert parse_yaml(written, origin="written") == document
