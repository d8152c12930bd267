"""Owns what an experiment's settings are and which of them are frozen; reads no file and no environment by itself.

`sections` are the settings, `urls` the address and the key, `request_options` what goes along with every request,
`documents` turns a YAML mapping into settings, `snapshots` turns settings into the stored text and back,
`from_columns` makes settings of an experiment of the predecessor.
"""

from narrun_async.config.documents import apply_environment, notices, parse_config
from narrun_async.config.from_columns import config_from_columns
from narrun_async.config.sections import (
    DataSection,
    ExperimentConfig,
    ExperimentSection,
    ModelSection,
    OperationalSettings,
    PrivacySection,
    PromptSection,
    ProviderKind,
    RunSection,
    SimulationSection,
)
from narrun_async.config.snapshots import (
    NOT_SET,
    Difference,
    config_from_snapshot,
    diff_snapshots,
    digest_text,
    settings_of_snapshot,
    snapshot_json,
    snapshot_sha256,
)
from narrun_async.config.urls import expand_fields, expand_url, resolve_api_key

__all__ = [
    "NOT_SET",
    "DataSection",
    "Difference",
    "ExperimentConfig",
    "ExperimentSection",
    "ModelSection",
    "OperationalSettings",
    "PrivacySection",
    "PromptSection",
    "ProviderKind",
    "RunSection",
    "SimulationSection",
    "apply_environment",
    "config_from_columns",
    "config_from_snapshot",
    "diff_snapshots",
    "digest_text",
    "expand_fields",
    "expand_url",
    "notices",
    "parse_config",
    "resolve_api_key",
    "settings_of_snapshot",
    "snapshot_json",
    "snapshot_sha256",
]
