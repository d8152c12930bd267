"""`narrun migrate-config`: the new form of a configuration, written once it has shown that it says the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from narrun_async.config import ExperimentConfig, notices, parse_config, snapshot_sha256
from narrun_async.config.complaints import dotted
from narrun_async.config.migration import MigratedConfig, migrate_document
from narrun_async.errors import ConfigurationError, StorageError, UsageError
from narrun_async.sources.yaml_file import MAX_FILE_BYTES, decode_text, load_text_file, parse_yaml, scalar_words
from narrun_async.sources.yaml_text import write_yaml

#: of the SHA-256 of a prompt, in the name of its file
DIGITS = 12
#: stands in for the address that LLM_API_URL gives where the file has none; the same on both sides of the comparison
_SOME_ADDRESS = {"OPENAI_BASE_URL": "http://127.0.0.1/v1"}
_PROMPTS = {"system_prompt": "system", "user_template": "user"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewForm:
    """What is to be written, and what there is to say about it."""

    text: str = field(repr=False)
    #: texts of the files that it names and that are to be written with it
    prompts: Mapping[Path, str] = field(repr=False)
    #: lines for people
    remarks: Sequence[str]


def migrate_config(
    old: Path, environment: Mapping[str, str], *, output: Path | None, prompt_dir: Path | None, overwrite: bool
) -> NewForm:
    """Write the new form into a file; without one it is only returned. The old file is read and nothing else.

    :param prompt_dir: prompts go into files there, named by what they hold, so that many configurations share them
    :raises ConfigurationError: the old file cannot be read, or says something that only a person can put right
    :raises UsageError: the output is there already, or is the old file, a directory or a device
    :raises StorageError: a file cannot be written
    """
    _check_output(old, output, prompt_dir, overwrite=overwrite)
    form = new_form(old, environment, output=output, prompt_dir=prompt_dir)
    missing = {path: text for path, text in form.prompts.items() if not _holds(path, text)}
    for path, text in missing.items():
        _write_whole(path, text)
    if output is not None:
        _write_whole(output, form.text)
    return form


def _check_output(old: Path, output: Path | None, prompt_dir: Path | None, *, overwrite: bool) -> None:
    if output is None:
        if prompt_dir is not None:
            raise UsageError("--prompt-dir needs --output, for the new form names the prompts from where it lies")
        return
    try:
        is_old = output.exists() and old.exists() and output.samefile(old)
        is_irregular = output.exists() and not output.is_file()
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror}", path=output) from error
    if is_old:
        raise UsageError(f"{old} is only read; name another file with --output")
    if is_irregular:
        kind = "a directory" if output.is_dir() else "no regular file"
        raise UsageError(f"{output} is {kind}; name a file with --output")
    if os.path.lexists(output) and not overwrite:
        raise UsageError(f"{output} is there already", advice="name another file, or say --force")


def new_form(old: Path, environment: Mapping[str, str], *, output: Path | None, prompt_dir: Path | None) -> NewForm:
    """The new form after it was read back and compared; nothing is written.

    :raises ConfigurationError: as `migrate_config`
    """
    text, place = load_text_file(old), old.parent if output is None else output.parent
    raw = parse_yaml(text, origin=str(old))
    migrated = migrate_document(raw, words=scalar_words(text, origin=str(old)), environment=environment)
    read_beside_old = _reader(old.parent, {})
    expected = _parse(migrated.sections, read_beside_old, origin=f"{old}, brought into the new form")
    prompts: dict[Path, str] = {}
    sections = {name: dict(settings) for name, settings in migrated.sections.items() if isinstance(settings, Mapping)}
    sections["prompt"] = _prompt_section(sections["prompt"], old.parent, place, prompt_dir, prompts)
    written = write_yaml(
        sections,
        heading=f"Written by `narrun migrate-config` from {old.name}; docs/configuration.md explains every key.",
        comments=_comments(migrated),
    )
    found = _parse(parse_yaml(written, origin="the new form"), _reader(place, prompts), origin="the new form")
    _require_same(found, expected)
    remarks = [
        *_comparison(old, raw, read_beside_old, migrated, expected),
        *(f"{dotted((one.key,))} left out: {one.why}" for one in migrated.dropped),
        *(f"NOTE: {sentence}" for sentence in (*notices(expected), *_notes(expected, sections, prompt_dir))),
    ]
    return NewForm(text=written, prompts=prompts, remarks=remarks)


def _comparison(
    old: Path,
    raw: Mapping[str, object],
    read_text: Callable[[str], str],
    migrated: MigratedConfig,
    expected: ExperimentConfig,
) -> list[str]:
    """Which settings differ between the two forms, and why."""
    settings = f"settings {snapshot_sha256(expected)[:DIGITS]}"
    try:
        before = _parse(raw, read_text, origin=str(old))
    except ConfigurationError as error:
        return [
            f"the old form is refused as it is: {error.problem}",
            *(f"{dotted((one.key,))} changed: {one.why}" for one in migrated.changed),
            f"all else is the same, read back and compared ({settings})",
        ]
    _require_same(before, expected)
    return [f"old and new form say the same, read back and compared ({settings})"]


def _require_same(one: ExperimentConfig, other: ExperimentConfig) -> None:
    """:raises AssertionError: a defect of ours; nothing has been written"""
    if (snapshot_sha256(one), one.operational) != (snapshot_sha256(other), other.operational):
        raise AssertionError("the two forms do not say the same")


def _notes(
    config: ExperimentConfig, sections: Mapping[str, Mapping[str, object]], prompt_dir: Path | None
) -> list[str]:
    from narrun_async.providers.egress import address_is_allowed

    found = []
    host = urlsplit(config.model.api_url or "").hostname or "localhost"
    is_near = host == "localhost" or "$" in host or address_is_allowed(host, allow_remote=False)
    if not (is_near or config.privacy.allow_remote):
        found.append(
            f"if {host} is not a private address, a run calls it only with `privacy.allow_remote: true` and an "
            "`approval_note`; the predecessor asked for neither"
        )
    if prompt_dir is not None:
        inline = [key for key in _PROMPTS if key in sections["prompt"]]
        found += [f"`prompt.{key}` stays in the new form: no text file would keep its line ends" for key in inline]
    return found


# --- the text ---------------------------------------------------------------------------------------------------------


def _prompt_section(
    settings: Mapping[str, object],
    old_place: Path,
    place: Path,
    prompt_dir: Path | None,
    prompts: dict[Path, str],
) -> dict[str, object]:
    """The section with its texts in files, if that is wanted, and with the names of files seen from the new place."""
    section: dict[str, object] = {}
    for key, value in settings.items():
        kind = _PROMPTS.get(key)
        if key.endswith("_file") and isinstance(value, str):
            section[key] = value if old_place == place else _seen_from(place, old_place / value)
        elif kind is not None and prompt_dir is not None and isinstance(value, str) and _fits_into_file(value):
            digest = hashlib.sha256(value.encode()).hexdigest()
            path = prompt_dir / f"{kind}-{digest[:DIGITS]}.txt"
            prompts[path] = value
            section[f"{key}_file"] = _seen_from(place, path)
        else:
            section[key] = value
    return section


def _seen_from(place: Path, path: Path) -> str:
    # resolved, because `..` after a link leads to where the link points
    return os.path.relpath(path.resolve(), place.resolve())


def _fits_into_file(text: str) -> bool:
    """Whether a text file gives the text back: its reader takes a byte order mark away and makes every line end LF."""
    content = text.encode()
    return len(content) <= MAX_FILE_BYTES and decode_text(content, origin="") == text


def _comments(migrated: MigratedConfig) -> dict[str, list[str]]:
    comments = {one.key: [one.why] for one in migrated.changed}
    for one in migrated.dropped:
        name = one.key.rpartition(".")[2]
        comments[one.key] = [f"{name}: {one.was} ({one.why})" if one.was else f"{name}: {one.why}"]
    return comments


# --- files ------------------------------------------------------------------------------------------------------------


def _parse(document: Mapping[str, object], read_text: Callable[[str], str], *, origin: str) -> ExperimentConfig:
    return parse_config(document, read_text=read_text, origin=origin, environment=_SOME_ADDRESS)


def _reader(directory: Path, planned: Mapping[Path, str]) -> Callable[[str], str]:
    """Reads prompt files as a run would, those that are not written yet included."""
    texts = {path.resolve(): text for path, text in planned.items()}

    def read_text(name: str) -> str:
        path = (directory / name).resolve()  # the directory of the new form may not be there yet
        text = texts.get(path)
        return load_text_file(path) if text is None else decode_text(text.encode(), origin=name)

    return read_text


def _holds(path: Path, text: str) -> bool:
    """Whether a prompt is there already.

    :raises UsageError: something else is there under its name
    """
    if not os.path.lexists(path):
        return False
    if not path.is_file() or path.read_bytes() != text.encode():
        raise UsageError(f"{path} does not hold the prompt that its name stands for", advice="remove or rename it")
    return True


def _write_whole(path: Path, text: str) -> None:
    """A kill leaves the file as it was, or whole.

    :raises StorageError: it cannot be written
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_bytes(text.encode())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror}", path=path) from error
