"""What makes experiments comparable: the settings that decide how a narrative is judged, of any experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from narrun_async.config import NOT_SET, digest_text, settings_of_snapshot
from narrun_async.errors import ConfigurationError
from narrun_async.models import Experiment

#: keys that begin so name, allow and limit; they change no judgement of a narrative
_ASIDE = (
    "experiment.",
    "data.",
    "privacy.",
    "run.max_narratives",
    "model.api_key",
    "prompt.author",
    "prompt.system_prompt_file",
    "prompt.user_template_file",
)
#: runs that differ in nothing but these are repetitions of one another; a prompt is known by its text
OF_REPETITIONS = frozenset({"run.seed", "model.seed", "prompt.version"})

#: setting → column, for experiments of the predecessor, which have no snapshot
_COLUMNS = {
    "model.name": "model_name",
    "model.provider": "model_provider",
    "model.api_url": "api_url",
    "model.temperature": "temperature",
    "prompt.version": "prompt_version",
    "run.seed": "run_seed",
}
#: what the predecessor never did
_NEVER = {"model.second_try": "false", "run.skip_placeholders": "false", "run.ask_identical_once": "false"}
_PROMPTS = {"prompt.system_prompt": "system_prompt", "prompt.user_template": "user_template"}


def comparable_settings(experiment: Experiment) -> Mapping[str, str]:
    """The settings that can make a difference to an answer, by dotted key, as short texts; prompts by their hash."""
    if experiment.config_json is not None:
        try:
            found = settings_of_snapshot(experiment.config_json)
            if experiment.answer_format is not None:
                # what `auto` came to is part of what was asked
                found["model.response_format"] = f"auto: {experiment.answer_format}"
            return {key: value for key, value in found.items() if not key.startswith(_ASIDE)}
        except ConfigurationError:
            pass  # of another version; the columns say the most important ones
    columns = experiment.columns
    settings = {key: str(columns[name]) for key, name in _COLUMNS.items() if columns.get(name) not in (None, "")}
    texts = {key: columns.get(name) for key, name in _PROMPTS.items()}
    return _NEVER | settings | {key: digest_text(text) for key, text in texts.items() if isinstance(text, str) and text}


def are_repetitions(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two experiments ask the same question in the same way, so that their answers should be the same."""
    keys = (one.keys() | other.keys()) - OF_REPETITIONS
    return all(one.get(key, NOT_SET) == other.get(key, NOT_SET) for key in keys)


def varying_settings(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Keys that are not the same in all, sorted."""
    keys = {key for one in settings for key in one}
    return sorted(key for key in keys if len({one.get(key, NOT_SET) for one in settings}) > 1)
