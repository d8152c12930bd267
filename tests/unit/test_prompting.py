"""The request body: what is sent, byte for byte."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrun_async.config.sections import PLACEHOLDER as CONFIG_PLACEHOLDER
from narrun_async.errors import ConfigurationError
from narrun_async.prompting import (
    BOUND_PROBE_TOKENS,
    PLACEHOLDER,
    PROBE_TEXT,
    REMINDER,
    Change,
    RequestFields,
    RequestTemplate,
    bound_probe_bodies,
)

# every code point, lone surrogates included: body_for is total
any_text = st.text(st.characters(exclude_categories=()))


def naive_body(fields: RequestFields, narrative_text: str) -> bytes:
    content = fields.user_template.replace("<<TEXT>>", narrative_text)
    request: dict[str, Any] = {"model": fields.model, "messages": []}
    if fields.system_prompt:
        request["messages"].append({"role": "system", "content": fields.system_prompt})
    request["messages"].append({"role": "user", "content": content})
    names = ("temperature", "max_tokens", "max_completion_tokens", "seed", "top_p", "reasoning_effort")
    for name in (*names, "response_format"):
        if getattr(fields, name) is not None:
            request[name] = getattr(fields, name)
    request |= fields.further
    request["stream"] = False
    return json.dumps(request, separators=(",", ":")).encode()


request_fields = st.builds(
    RequestFields,
    model=any_text,
    system_prompt=st.none() | any_text,
    user_template=st.lists(any_text, min_size=2, max_size=4).map("<<TEXT>>".join),
    temperature=st.none() | st.floats(0, 2),
    max_tokens=st.none() | st.integers(1),
    seed=st.none() | st.integers(0),
    top_p=st.none() | st.floats(0, 1),
    max_completion_tokens=st.none() | st.integers(1),
    reasoning_effort=st.none() | any_text,
    response_format=st.none() | st.dictionaries(any_text, any_text, max_size=2),
    further=st.dictionaries(any_text.map("further ".__add__), any_text, max_size=2),
)


@given(request_fields, any_text)
def test_body_equals_the_naive_construction(fields: RequestFields, narrative_text: str) -> None:
    assert RequestTemplate.build(fields).body_for(narrative_text) == naive_body(fields, narrative_text)


@given(request_fields, any_text)
def test_a_reminder_is_one_more_paragraph_and_the_next_seed_and_nothing_else(
    fields: RequestFields, narrative_text: str
) -> None:
    seed = None if fields.seed is None else (fields.seed + 1) % 2**63
    expected = replace(fields, user_template=f"{fields.user_template}\n\n{REMINDER}", seed=seed)
    template = RequestTemplate.build(fields)
    assert template.can_make(Change.REMINDER)
    assert template.body_for(narrative_text, Change.REMINDER) == naive_body(expected, narrative_text)


@given(request_fields, any_text)
def test_more_tokens_are_twice_the_limit_and_nothing_else(fields: RequestFields, narrative_text: str) -> None:
    template = RequestTemplate.build(fields)
    limits = {name: getattr(fields, name) for name in ("max_tokens", "max_completion_tokens")}
    doubled = {name: 2 * limit for name, limit in limits.items() if limit is not None}
    assert template.can_make(Change.MORE_TOKENS) == bool(doubled)
    if doubled:
        expected = replace(fields, **doubled)
        assert template.body_for(narrative_text, Change.MORE_TOKENS) == naive_body(expected, narrative_text)


def test_the_seed_after_the_last_one_is_the_first() -> None:
    template = RequestTemplate.build(RequestFields(model="m", user_template="<<TEXT>>", seed=2**63 - 1))
    assert json.loads(template.body_for("x", Change.REMINDER))["seed"] == 0


def test_a_second_try_sends_no_two_messages_of_a_kind_in_a_row() -> None:
    fields = RequestFields(model="m", system_prompt="s", user_template="<<TEXT>>", max_tokens=1)
    for change in (None, *Change):
        messages = json.loads(RequestTemplate.build(fields).body_for("x", change))["messages"]
        assert [message["role"] for message in messages] == ["system", "user"]


def test_a_placeholder_inside_the_narrative_stays_as_it_is() -> None:
    template = RequestTemplate.build(RequestFields(model="m", user_template="one <<TEXT>> two <<TEXT>>"))
    request = json.loads(template.body_for("A <<TEXT>> B"))
    assert request["messages"] == [{"role": "user", "content": "one A <<TEXT>> B two A <<TEXT>> B"}]


def test_fields_that_are_not_set_are_not_sent() -> None:
    request = json.loads(RequestTemplate.build(RequestFields(model="m", user_template="<<TEXT>>")).body_for("x"))
    assert request.keys() == {"model", "messages", "stream"}


def test_a_template_without_a_place_for_the_narrative_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="<<TEXT>>"):
        RequestTemplate.build(RequestFields(model="m", user_template="<TEXT>"))


def test_probe_asks_the_same_model_for_one_token_and_holds_no_prompt() -> None:
    fields = RequestFields(model="m", system_prompt="canary system", user_template="canary user <<TEXT>>")
    probe = RequestTemplate.build(fields).probe_body()
    assert b"canary" not in probe
    assert json.loads(probe) == {
        "model": "m",
        "messages": [{"role": "user", "content": PROBE_TEXT}],
        "max_tokens": 1,
        "stream": False,
    }


def test_the_limit_of_the_health_check_has_the_name_that_was_configured() -> None:
    fields = RequestFields(model="m", user_template="<<TEXT>>", max_completion_tokens=900)
    probe = json.loads(RequestTemplate.build(fields).probe_body())
    assert probe["max_completion_tokens"] == 1
    assert "max_tokens" not in probe


def test_a_bound_question_has_the_options_of_the_experiment_and_nothing_of_its_prompts() -> None:
    fields = RequestFields(
        model="m",
        system_prompt="canary system",
        user_template="canary user <<TEXT>>",
        temperature=0.2,
        max_completion_tokens=9000,
        reasoning_effort="high",
        response_format={"type": "text"},
        further={"top_k": 5},
    )
    (body,) = bound_probe_bodies(fields, {"type": "json_object"})
    request = json.loads(body)
    text = request["messages"][0].pop("content")
    assert text.startswith(PROBE_TEXT)
    assert "JSON" in text
    assert request == {
        "model": "m",
        "messages": [{"role": "user"}],
        "temperature": 0.2,
        "max_completion_tokens": BOUND_PROBE_TOKENS,
        "reasoning_effort": "high",
        "top_k": 5,
        "stream": False,
        "response_format": {"type": "json_object"},
    }
    (plain,) = bound_probe_bodies(fields, None)
    assert "response_format" not in json.loads(plain)
    assert json.loads(plain)["messages"][0]["content"] == PROBE_TEXT


@pytest.mark.parametrize("limit", [None, 30])
def test_a_bound_question_that_is_refused_is_tried_with_the_limit_of_the_experiment(limit: int | None) -> None:
    fields = RequestFields(model="m", user_template="<<TEXT>>", max_tokens=limit)
    limited, as_configured = (json.loads(body) for body in bound_probe_bodies(fields, None))
    assert limited.pop("max_tokens") == BOUND_PROBE_TOKENS
    assert as_configured.pop("max_tokens", None) == limit
    assert limited == as_configured


def test_repr_shows_no_prompt() -> None:
    fields = RequestFields(model="m", system_prompt="canary system", user_template="canary user <<TEXT>>")
    assert "canary" not in repr(fields) + repr(RequestTemplate.build(fields))


def test_template_survives_pickling() -> None:
    template = RequestTemplate.build(RequestFields(model="m", user_template="a <<TEXT>> b", max_tokens=9))
    again = pickle.loads(pickle.dumps(template))
    for change in (None, *Change):
        assert again.body_for("x", change) == template.body_for("x", change)


def test_both_rooms_mean_the_same_placeholder() -> None:
    assert PLACEHOLDER == CONFIG_PLACEHOLDER
