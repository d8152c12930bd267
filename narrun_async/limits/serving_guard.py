"""Owns the suspicion that another model or server answers than at the beginning of the experiment."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from narrun_async.errors import ServingChangedError
from narrun_async.models import Outcome, Serving

#: changes that are told one by one; an endpoint that balances over many servers shows more, and that is told once
MAX_TOLD = 5


class ServingGuard:
    """Knows who has answered for an experiment, and notices somebody new.

    :param known: who answered in earlier runs, oldest first
    :param stops: a change stops the run; otherwise it is told
    :param tell: one sentence for people
    """

    def __init__(self, known: Iterable[Serving], *, stops: bool, tell: Callable[[str], None]) -> None:
        self._known = list(known)
        self._keys = {_key(one.model, one.system_fingerprint, one.server) for one in self._known}
        #: model and fingerprint, whatever their server
        self._models = {_key(one.model, one.system_fingerprint, None) for one in self._known}
        self._stops = stops
        self._tell = tell

    def meet(self, outcome: Outcome) -> Serving | None:
        """Who gave this answer, if nobody knows them yet; to be stored before the answer is.

        Where the server was not known, because nobody noted it or it did not say, a name of it is no change. Where it
        is not known now, as in the answers of a batch, that is none either.

        :raises ServingChangedError: the run is to stop at a change; the answer is not to be stored
        """
        envelope = outcome.envelope
        if envelope.model is None and envelope.system_fingerprint is None:
            return None  # no answer, or one that does not say whose it is
        key = _key(envelope.model, envelope.system_fingerprint, outcome.server)
        model = _key(envelope.model, envelope.system_fingerprint, None)
        if key in self._keys or (outcome.server is None and model in self._models):
            return None
        serving = Serving(model=envelope.model, system_fingerprint=envelope.system_fingerprint, server=outcome.server)
        if self._known and model not in self._keys:
            self._change(serving)
        self._keys.add(key)
        self._models.add(model)
        self._known.append(serving)
        return serving

    def _change(self, serving: Serving) -> None:
        before = self._known[-1]
        if self._stops:
            raise ServingChangedError(before=str(before), now=str(serving))
        if len(self._known) <= MAX_TOLD:
            self._tell(f"the endpoint changed: {before} answered so far, {serving} answers now")
        elif len(self._known) == MAX_TOLD + 1:
            self._tell("the endpoint goes on changing; `narrun show` lists who answered")


def _key(model: str | None, system_fingerprint: str | None, server: str | None) -> tuple[str, str, str]:
    return (model or "", system_fingerprint or "", server or "")
