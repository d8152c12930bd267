"""`narrun browse`: a database in a web browser of this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from narrun_async.app.databases import reading
from narrun_async.app.showing import find_shown, is_simulated
from narrun_async.errors import MissingPackageError, TemporaryError
from narrun_async.models import Experiment
from narrun_async.reporting.wording import SIMULATED
from narrun_async.stores.sqlite.browsing import BrowsingCopy, browsed_columns

#: one line for a person
Tell = Callable[[str], None]


async def browse_database(
    database: Path, wanted: str | None, *, port: int, with_text: bool, tell: Tell, say: Tell
) -> None:
    """Serve a copy of the database until SIGINT or SIGTERM; the database is only read.

    :param wanted: one experiment; None: all of them
    :param tell: lines for people
    :param say: the link
    :raises MissingPackageError: datasette is not installed
    :raises TemporaryError: the port is taken
    """
    if find_spec("datasette") is None:
        raise MissingPackageError(wanted="narrun browse", package="datasette")
    from narrun_async.reporting.browse import Link, Shown, serve_site  # loads datasette

    async with reading(database) as store:
        experiment = await find_shown(store, wanted) if wanted else None
        experiments = [experiment] if experiment else await store.list_experiments()
    shown = Shown(
        title=f"{database.name}: {experiment.name}" if experiment else database.name,
        columns=browsed_columns(with_text=with_text),
        with_text=with_text,
        notice=_notice(experiments),
        is_one_experiment=experiment is not None,
    )
    experiment_id = experiment.experiment_id if experiment else None
    copy = BrowsingCopy(database, experiment_id=experiment_id, with_text=with_text)

    def welcome(link: Link) -> None:
        say(str(link))
        for line in _WITH_TEXT if with_text else _WITHOUT_TEXT:
            tell(line)

    try:
        copy.freshen()
        await serve_site(copy, shown, port=port, on_ready=welcome)
    except OSError as error:
        raise TemporaryError(f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from error
    finally:
        copy.close()


def _notice(experiments: Sequence[Experiment]) -> str:
    simulated = [one for one in experiments if is_simulated(one)]
    if not simulated:
        return ""
    if len(simulated) == len(experiments):
        return SIMULATED
    return f"Where model_provider is simulated: {SIMULATED}"


_END = "The link is for you alone, and works on this machine while this command runs; Ctrl-C ends it."
_WITHOUT_TEXT = (
    "Without narratives, without what may quote one, and without prompts; they are not even in memory.",
    _END,
)
_WITH_TEXT = (
    "WITH TEXTS: whoever has the link can read every narrative and every answer. They are held in memory, and shown in",
    "a browser that may remember what it showed (history, screenshots, saved pages, extensions).",
    _END,
)
