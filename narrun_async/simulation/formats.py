"""Makes of an answer what its request's `response_format` asks for, as far as the simulated server obeys it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from narrun_async.simulation.answers import Answer, verdict_json
from narrun_async.simulation.behaviour import FormatHandling
from narrun_async.simulation.chat import ChatRequest
from narrun_async.simulation.faults import Draws

#: what a grammar that does not know the model's channels makes of its answer
_GARBLED = '<|channel|>{"<|message|>": <|constrain|>JSON'
_INSTANCES: Mapping[str, object] = {
    "boolean": True,
    "number": 0.5,
    "integer": 1,
    "string": "simulated",
    "array": [],
}


def formatted_answer(chat: ChatRequest, draws: Draws, *, flip_rate: float) -> Answer | None:
    """The answer to a request that asks for a word or for JSON; None where it is free to be anything."""
    if chat.handling is FormatHandling.GARBLE:
        return Answer(content=_GARBLED)
    if chat.handling is not FormatHandling.BIND:
        return None if chat.wanted_word is None else Answer(content=chat.wanted_word)
    properties = chat.schema.get("properties") if chat.schema else None
    if isinstance(properties, Mapping) and "detected" not in properties:
        return Answer(content=json.dumps(_instance(chat.schema)))
    if chat.wanted_word is not None:
        return Answer(content=json.dumps({"reply": chat.wanted_word}))
    # the form in which nothing but JSON is said, and the indicators are a list
    return Answer(content=verdict_json(chat.text, draws._replace(form=0.0), flip_rate=flip_rate))


def _instance(schema: object) -> object:
    """Something that a simple schema allows."""
    if not isinstance(schema, Mapping):
        return None
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        return {name: _instance(inner) for name, inner in properties.items()}
    return _INSTANCES.get(str(schema.get("type")))
