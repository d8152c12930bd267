"""Owns what an experiment's settings are and which of them are frozen; reads no file and no environment by itself.

`sections` are the settings, `urls` the address and the key, `documents` turns a YAML mapping into settings,
`snapshots` turns settings into the stored text and back, `from_columns` makes settings of a predecessor's experiment.
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
    Difference,
    config_from_snapshot,
    diff_snapshots,
    snapshot_json,
    snapshot_sha256,
)
from narrun_async.config.urls import expand_url, resolve_api_key

__all__ = [
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
    "expand_url",
    "notices",
    "parse_config",
    "resolve_api_key",
    "snapshot_json",
    "snapshot_sha256",
]
