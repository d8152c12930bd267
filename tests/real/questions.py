"""What the experiments of these tests ask for: answers that a grammar brings to an end, and some that it does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import Workplace

Schema = dict[str, Any]


def response_format(schema: Schema) -> Mapping[str, Any]:
    """As a user writes it into `model.response_format`."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def _object(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


#: always closes: a pattern bounds each text, and letters alone cannot break it
CLOSING = _object(
    detected={"type": "boolean"},
    confidence={"enum": [0.05, 0.25, 0.5, 0.75, 0.95]},
    indicators={"type": "array", "maxItems": 2, "items": {"type": "string", "pattern": "^[a-z]{3,12}$"}},
    rationale={"type": "string", "pattern": "^[A-Za-z ]{10,20}$"},
)
#: as a user would write it; llama.cpp's grammar does not know `minimum` and `maximum` of a number that is no integer
BOUNDED_NUMBER = _object(detected={"type": "boolean"}, confidence={"type": "number", "minimum": 0, "maximum": 1})
#: any text: a model that writes noise breaks the JSON of most answers, and the server answers 500
ANY_TEXT = _object(detected={"type": "boolean"}, confidence={"enum": [0.05, 0.95]}, rationale={"type": "string"})


def write_config(workplace: Workplace, url: str, *, narratives: int, schema: Schema = CLOSING, **changes: Any) -> Path:
    """A configuration, and the narratives that it names; `section__key=value` sets a key of it."""
    return workplace.write_config(
        url=url,
        narratives=workplace.write_narratives(narratives),
        model__response_format=response_format(schema),
        **changes,
    )
