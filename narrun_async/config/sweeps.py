"""Owns what a sweep is: a base configuration, and settings that take every combination of their values. Pure.

sweep:  {name, notes}
base:   the YAML file of a configuration, relative to the sweep's own file
matrix: sections of a configuration in which every value is a list, such as `model: {temperature: [0.0, 0.2]}`
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import sha256
from itertools import product
from pathlib import PurePath

from narrun_async.config.complaints import dotted
from narrun_async.config.documents import parse_config
from narrun_async.config.sections import ExperimentConfig
from narrun_async.config.snapshots import snapshot_sha256
from narrun_async.config.values import MAX_LINE_CHARS
from narrun_async.errors import ConfigurationError

#: more experiments than that are a slip of the keyboard
MAX_EXPERIMENTS = 1_000
MAX_NAME_CHARS = 200
_FILE_AXES = ("prompt.system_prompt_file", "prompt.user_template_file")
#: what may differ within a sweep: all of it goes to one endpoint, over one cohort
AXES = (
    *_FILE_AXES,
    "model.name",
    "model.temperature",
    "model.reasoning_effort",
    "model.top_p",
    "model.max_tokens",
    "model.max_completion_tokens",
    "model.seed",
    "model.response_format",
    "run.seed",
)
_SECTIONS = frozenset({"sweep", "base", "matrix"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepDocument:
    """The file of a sweep as it is written, its shape checked, its values not."""

    name: str
    notes: str | None
    #: as written
    base: str
    #: dotted key → its values, in the order of the file
    axes: Mapping[str, Sequence[object]]

    @property
    def n_experiments(self) -> int:
        return math.prod(len(values) for values in self.axes.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepCell:
    """One experiment of a sweep."""

    #: axis → its value in words; a prompt file by its stem
    settings: Mapping[str, str]
    config: ExperimentConfig = field(repr=False)


def parse_sweep(raw: Mapping[str, object], *, origin: str) -> SweepDocument:
    """The shape of a sweep's file.

    :raises ConfigurationError: a part is missing, unknown or of the wrong type; the values themselves are not looked at
    """
    unknown = sorted(raw.keys() - _SECTIONS)
    if unknown:
        advice = "a sweep has `sweep`, `base` and `matrix`"
        raise ConfigurationError(f"{origin}: unknown key {dotted((unknown[0],))}", advice=advice)
    base = raw.get("base")
    if not isinstance(base, str) or not base.strip():
        raise ConfigurationError(f"{origin}: `base` must be the name of a configuration file")
    head = raw.get("sweep")
    if not isinstance(head, Mapping) or head.keys() - {"name", "notes"}:
        raise ConfigurationError(f"{origin}: `sweep` must be a section with `name` and, if you like, `notes`")
    name, notes = head.get("name"), head.get("notes")
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > MAX_NAME_CHARS:
        raise ConfigurationError(f"{origin}: `sweep.name` must be one line of at most {MAX_NAME_CHARS} characters")
    if notes is not None and not isinstance(notes, str):
        raise ConfigurationError(f"{origin}: `sweep.notes` must be text")
    document = SweepDocument(name=name, notes=notes, base=base, axes=dict(_axes(raw.get("matrix"), origin)))
    if document.n_experiments > MAX_EXPERIMENTS:
        raise ConfigurationError(
            f"{origin}: `matrix` makes {document.n_experiments:,} experiments, and more than {MAX_EXPERIMENTS:,} are"
            " taken for a mistake"
        )
    return document


def _axes(matrix: object, origin: str) -> Iterator[tuple[str, Sequence[object]]]:
    if not isinstance(matrix, Mapping) or not matrix:
        raise ConfigurationError(
            f"{origin}: `matrix` must hold sections with lists", advice="such as `model: {temperature: [0.0, 0.2]}`"
        )
    for section, settings in matrix.items():
        if not isinstance(settings, Mapping):
            shown = dotted(("matrix", section))
            raise ConfigurationError(f"{origin}: {shown} must be a section, a mapping of keys to lists")
        for key, values in settings.items():
            axis = f"{section}.{key}"
            if axis not in AXES:
                near = get_close_matches(axis, AXES, n=1)
                advice = f"did you mean `{near[0]}`?" if near else f"these can: {', '.join(AXES)}"
                shown = dotted(("matrix", section, key))
                raise ConfigurationError(f"{origin}: {shown} cannot differ within a sweep", advice=advice)
            if not isinstance(values, list) or not values:
                raise ConfigurationError(f"{origin}: `matrix.{axis}` must be a list of values")
            yield axis, values


def expand_sweep(
    document: SweepDocument,
    base: Mapping[str, object],
    *,
    read_base_text: Callable[[str], str],
    read_text: Callable[[str], str],
    origin: str,
    environment: Mapping[str, str],
    overrides: Mapping[str, object],
) -> list[SweepCell]:
    """Every experiment, in the order of the matrix, the last axis changing fastest.

    :param base: the mapping that the base file holds
    :param read_base_text: reads a prompt file as the base names it
    :param read_text: reads a prompt file as the sweep names it
    :param overrides: as for `parse_config`
    :raises ConfigurationError: a combination is no configuration, or two of them are the same experiment
    """
    if "model.name" in document.axes and environment.get("LLM_MODEL"):
        raise ConfigurationError(
            f"{origin}: LLM_MODEL is set and would take the place of every model of `matrix.model.name`",
            advice="unset LLM_MODEL",
        )
    cells: list[SweepCell] = []
    seen: dict[str, str] = {}
    for values in product(*document.axes.values()):
        chosen = dict(zip(document.axes, values, strict=True))
        settings = {axis: _in_words(axis, value) for axis, value in chosen.items()}
        label = label_of(settings)
        config = parse_config(
            _combined(base, chosen, read_text, origin),
            read_text=read_base_text,
            origin=f"{origin} ({label})",
            environment=environment,
            overrides=overrides,
        )
        if any(cell.settings == settings for cell in cells):
            raise ConfigurationError(f"{origin}: ({label}) comes twice", advice="give prompt files different names")
        if (twin := seen.setdefault(snapshot_sha256(config), label)) != label:
            raise ConfigurationError(f"{origin}: ({twin}) and ({label}) are the same experiment")
        name = f"{document.name} {len(cells) + 1:0{len(str(document.n_experiments))}}: {label}"
        cells.append(SweepCell(settings=settings, config=_named(config, name)))
    return cells


def label_of(settings: Mapping[str, str]) -> str:
    """The settings of a cell on one line: `temperature=0.2, seed=1`."""
    names = short_names([*settings])
    return ", ".join(f"{name}={value}" for name, value in zip(names, settings.values(), strict=True))


def short_names(axes: Sequence[str]) -> list[str]:
    """Axes as people are shown them, with their sections only where two have a key of that name."""
    keys = [axis.partition(".")[2] for axis in axes]
    return [axis if keys.count(key) > 1 else key for axis, key in zip(axes, keys, strict=True)]


def sweep_sha256(document: SweepDocument, cells: Sequence[SweepCell]) -> str:
    """What a sweep is known by: its name and the snapshots of its experiments, in order."""
    known = json.dumps([document.name, [snapshot_sha256(cell.config) for cell in cells]], ensure_ascii=False)
    return sha256(known.encode()).hexdigest()


def _combined(
    base: Mapping[str, object], chosen: Mapping[str, object], read_text: Callable[[str], str], origin: str
) -> dict[str, object]:
    """The base with the values of one cell in place of its own; a prompt file is read here, relative to the sweep."""
    document = {name: dict(part) if isinstance(part, Mapping) else part for name, part in base.items()}
    for axis, value in chosen.items():
        section_name, _, key = axis.partition(".")
        section = document.setdefault(section_name, {})
        if not isinstance(section, dict):
            raise ConfigurationError(f"{origin}: `{section_name}` of the base is no section")
        if axis not in _FILE_AXES:
            section[key] = value
            continue
        if not isinstance(value, str) or not value.strip():
            raise ConfigurationError(f"{origin}: `matrix.{axis}` must be a list of file names")
        section.pop(key, None)
        section[key.removesuffix("_file")] = read_text(value)
    stems = [PurePath(str(chosen[axis])).stem for axis in _FILE_AXES if axis in chosen]
    if stems and isinstance(prompt := document.get("prompt"), dict):
        # Readers of the tables tell prompts apart by their version.
        prompt["version"] = " + ".join(stems)
    return document


def _in_words(axis: str, value: object) -> str:
    if axis in _FILE_AXES:
        return PurePath(str(value)).stem
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _named(config: ExperimentConfig, name: str) -> ExperimentConfig:
    named = config.experiment.model_copy(update={"name": name[:MAX_LINE_CHARS]})
    return config.model_copy(update={"experiment": named})
