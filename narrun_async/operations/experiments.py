"""Creates an experiment with its snapshot and frozen cohort, and finds the one that is to go on."""

from __future__ import annotations

import platform
import re
import socket
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from narrun_async import __version__
from narrun_async.clock import local_now
from narrun_async.config import (
    Difference,
    ExperimentConfig,
    diff_snapshots,
    snapshot_json,
    snapshot_sha256,
)
from narrun_async.errors import BadInputError, ConfigurationError, UnknownExperimentError, UsageError
from narrun_async.models import (
    DataSource,
    Experiment,
    ExperimentId,
    ExperimentStatus,
    NewExperiment,
    Screening,
    Selection,
    SweepPlace,
)
from narrun_async.ports import ExperimentStore, ResultStore, SourceStore, Store

LATEST = "latest"
_NO_LATEST = {
    Selection.MISSING: "there is no incomplete experiment",
    Selection.ERRORS: "there is no experiment with error rows",
    Selection.MISSING_AND_ERRORS: "there is no experiment that is incomplete or has error rows",
}


class FindingStore(ExperimentStore, ResultStore, Protocol):
    """What finding an experiment needs of a store."""


#: shorter prefixes are more likely a slip than a choice
SHORTEST_PREFIX = 8
_ID_PREFIX = re.compile(r"[0-9a-f-]{1,36}")


async def create_experiment(
    store: Store,
    config: ExperimentConfig,
    source: DataSource,
    *,
    screening: Screening | None,
    config_file: Path | None,
    log_root: Path,
) -> Experiment:
    """Freeze a configuration and its cohort, and store them.

    :param screening: of the data source; needed where what it tells decides who is asked
    :param log_root: the experiment's own log directory is made below it
    :raises BadInputError: the data source holds no narratives
    """
    new = await freeze_experiment(
        store, config, source, screening=screening, config_file=config_file, log_root=log_root
    )
    await store.create_experiment(new)
    return await store.load_experiment(new.experiment_id)


async def freeze_experiment(
    store: SourceStore,
    config: ExperimentConfig,
    source: DataSource,
    *,
    screening: Screening | None,
    config_file: Path | None,
    log_root: Path,
    sweep: SweepPlace | None = None,
) -> NewExperiment:
    """An experiment under a new id, not stored yet; the cohort's size is decided here and nowhere else.

    :param screening: of the data source; needed where what it tells decides who is asked
    :raises BadInputError: the data source holds no narratives
    """
    cohort = await store.load_cohort(source.checksum, max_narratives=config.run.max_narratives)
    if not cohort.n_narratives:
        raise BadInputError(f"{source.path}: the database holds no narratives of this file")
    experiment_id = ExperimentId(str(uuid.uuid4()))
    return NewExperiment(
        experiment_id=experiment_id,
        experiment_name=config.experiment.name,
        model_name=config.model.name,
        model_provider=config.model.provider,
        temperature=config.model.temperature,
        system_prompt=config.prompt.system_prompt,
        user_template=config.prompt.user_template,
        prompt_version=config.prompt.version,
        prompt_author=config.prompt.author or config.experiment.author,
        run_seed=config.run.seed,
        data_file=config.data.file,
        data_checksum=source.checksum,
        cohort_last_narrative_id=cohort.last_narrative_id,
        n_narratives_total=cohort.n_narratives,
        api_url=config.model.api_url or "simulated",
        log_dir=str((log_root / "experiments" / experiment_id).absolute()),
        notes=config.experiment.notes,
        config_json=snapshot_json(config),
        config_sha256=snapshot_sha256(config),
        config_file=str(config_file.absolute()) if config_file else None,
        os_info=_os_info(),
        hostname=socket.gethostname(),
        narrun_version=__version__,
        python_version=platform.python_version(),
        created_at=local_now(),
        sweep=sweep,
        skip_placeholders=config.run.skip_placeholders,
        ask_identical_once=config.run.ask_identical_once,
        placeholder_rules=screening.rules if screening and config.run.skip_placeholders else None,
    )


def _os_info() -> str:
    """As `platform.platform()` begins; that one starts a process for the rest, which could inherit the lock."""
    system = platform.uname()
    return f"{system.system}-{system.release}-{system.machine}"


def is_incomplete(experiment: Experiment) -> bool:
    return experiment.status is not ExperimentStatus.COMPLETED


async def find_experiment(
    store: FindingStore, wanted: str, *, name: str | None = None, selection: Selection = Selection.MISSING
) -> Experiment:
    """The experiment that an id, a unique prefix of one, or `latest` stands for.

    `latest` is the newest experiment that is not complete, or in which there are errors, where those are wanted.

    :param name: consider only experiments of this name
    :param selection: what is wanted of `latest`
    :raises UsageError: that is no id
    :raises UnknownExperimentError: none or several answer to it
    """
    experiments = [one for one in await store.list_experiments() if name is None or one.name == name]
    if wanted == LATEST:
        for experiment in experiments:
            if await _offers(store, experiment, selection):
                return experiment
        none_at_all = "there is no experiment in this database"
        raise UsageError(
            (_NO_LATEST[selection] if experiments or name else none_at_all) + (f" named {name!r}" if name else "")
        )
    if not _ID_PREFIX.fullmatch(wanted) or len(wanted) < SHORTEST_PREFIX:
        raise UsageError(
            f"{wanted[:40]!r} is not an experiment id",
            advice=f"give the id, at least its first {SHORTEST_PREFIX} characters, or `{LATEST}`",
        )
    found = [one for one in experiments if one.experiment_id.startswith(wanted)]
    if len(found) != 1:
        raise UnknownExperimentError(wanted, candidates=[one.experiment_id for one in found])
    return found[0]


async def _offers(store: FindingStore, experiment: Experiment, selection: Selection) -> bool:
    is_enough = selection is not Selection.ERRORS and is_incomplete(experiment)
    return is_enough or (selection is not Selection.MISSING and (await store.count_results(experiment)).n_errors > 0)


async def list_incomplete(store: ExperimentStore) -> Sequence[Experiment]:
    """Experiments that can be resumed, newest first."""
    return [one for one in await store.list_experiments() if is_incomplete(one)]


def require_snapshot(experiment: Experiment) -> str:
    """The stored configuration; whether it is still what was stored `verify` says.

    :raises ConfigurationError: the experiment has none
    """
    if experiment.config_json is None:
        raise ConfigurationError(
            f"experiment {experiment.experiment_id} was created by R and has no stored configuration yet",
            advice=f"it can be read; `narrun resume {experiment.experiment_id}` takes it up",
        )
    return experiment.config_json


def list_drift(experiment: Experiment, current: ExperimentConfig | None) -> Sequence[Difference]:
    """What a YAML of today says differently from the stored configuration, which stays in force."""
    if current is None or experiment.config_json is None:
        return ()
    return diff_snapshots(experiment.config_json, snapshot_json(current))
