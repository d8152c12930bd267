"""Writes configurations, and names variables, that must not be taken as they are, each with what has to be said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: stands for a prompt or a key; must be found in no message
CANARY = "A canary sang in the kitchen"

GOOD = f"""\
experiment:
  name: doors
model:
  name: test-model
  provider: openai-compatible
  api_url: http://127.0.0.1:9/v1/chat/completions
  temperature: 0.2
prompt:
  version: v1
  system_prompt: |
    {CANARY}.
  user_template: "Read: <<TEXT>>"
data:
  file: narratives.csv
run:
  seed: 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadConfig:
    """A configuration that is refused with exit code 78 before anything is made."""

    fault: str
    what: str
    content: bytes = field(repr=False)
    #: all of it stands in the one sentence, beside the name of the file
    said: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    names_file: bool = True


def _changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def _bad(fault: str, what: str, content: str | bytes, *said: str, **more: object) -> BadConfig:
    raw = content.encode() if isinstance(content, str) else content
    return BadConfig(fault=fault, what=what, content=raw, said=said, **more)  # type: ignore[arg-type]


def _line(new: str, old: str = "  seed: 1\n") -> str:
    return _changed(old, new)


def _alias_bomb() -> str:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]\n"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)]
    return "".join(levels)


_URL = "  api_url: http://127.0.0.1:9/v1/chat/completions\n"
_TEMPLATE = '  user_template: "Read: <<TEXT>>"\n'
_SYSTEM = f"  system_prompt: |\n    {CANARY}.\n"

BAD_CONFIGS: tuple[BadConfig, ...] = (
    _bad("Y01", "key twice", _line("  seed: 1\n  seed: 2\n"), "line 17", "`run.seed`", "twice"),
    _bad("Y01", "section twice", GOOD + "model:\n  name: other\n", "line 17", "`model`", "twice"),
    # words that YAML takes for something else
    _bad("Y02", "no", _changed("name: doors", "name: no"), "`experiment.name` must be text"),
    _bad("Y02", "1e5", _changed("0.2", "1e5"), "`model.temperature` must be a number (YAML takes 1e5 for text"),
    _bad("Y02", "012", _line("  seed: 012\n"), "line 16", "`run.seed`", "octal"),
    _bad("Y02", "12:30:45", _line("  seed: 12:30:45\n"), "line 16", "`run.seed`", "hours and minutes"),
    _bad("Y02", "a date", _changed("version: v1", "version: 2024-01-01"), "`prompt.version` must be text"),
    # what makes a value appear twice
    _bad("Y03", "alias bomb", _alias_bomb() + GOOD, "line 1", "`a0`", "anchors"),
    _bad("Y03", "recursive alias", "a: &a [*a]\n" + GOOD, "line 1", "`a`", "anchors"),
    _bad("Y03", "merge key", _line("  <<: {seed: 1}\n"), "line 16", "`run`", "merge"),
    # depth
    _bad("Y04", "a million brackets", "a: " + "[" * 1_000_000, "line 1", "20 levels"),
    _bad("Y04", "deep mappings", GOOD + "a: " + "{b: " * 50_000, "line 17", "20 levels"),
    # bytes
    _bad("Y05", "NUL", _changed("name: doors", "name: do\0ors"), "line 2", "NUL"),
    _bad("Y05", "latin-1", _changed("doors", "caf\xe9").encode("latin-1"), "line 2", "UTF-8"),
    _bad("Y05", "UTF-16", GOOD.encode("utf-16"), "line 1", "UTF-8"),
    _bad("Y05", "tab", _line("\tseed: 1\n"), "line 16", "tab"),
    _bad("Y05", "control character", _changed("doors", "do\x07ors"), "line 2", "character"),
    _bad("Y05", "escaped surrogate", _changed("doors", '"\\ud800"'), "line 2", "`experiment.name`", "escape"),
    # size
    _bad("Y06", "2 MiB", GOOD + "#" * (2 << 20), "larger than 1,048,576 bytes"),
    _bad("Y06", "300,000 values", GOOD + "a: [" + "1," * 300_000 + "1]\n", "line 17", "`a`", "5,000 values"),
    _bad("Y06", "a number of 5,000 digits", _line(f"  seed: {'9' * 5_000}\n"), "line 16", "`run.seed`"),
    # shape
    _bad("Y07", "two documents", GOOD + "---\n" + GOOD, "line 17", "second document"),
    _bad("Y07", "a list", "- a\n- b\n", "mapping of sections"),
    _bad("Y07", "words", f"{CANARY}\n", "mapping of sections"),
    _bad("Y07", "empty", "", "is empty"),
    _bad("Y07", "not YAML", f'a: "{CANARY}\n', "line"),
    _bad(
        "Y08", "python object", GOOD + "a: !!python/object/apply:os.system ['touch harm']\n", "line 17", "`a`", "tags"
    ),
    _bad("Y08", "binary", GOOD + "a: !!binary aGk=\n", "line 17", "`a`", "tags"),
    # keys
    _bad("Y09", "misspelt key", _changed("  temperature:", "  temprature:"), "did you mean `model.temperature`?"),
    _bad("Y09", "misspelt section", _changed("run:", "runn:"), "did you mean `run`?"),
    _bad("Y09", "in another section", _line("  temperature: 0\n"), "did you mean `model.temperature`?"),
    _bad("Y09", "a limit in another section", _line("  max_tokens: 5\n"), "did you mean `model.max_tokens`?"),
    _bad("Y09", "a key of another program", _line("  workers: 5\n"), "did you mean `run.concurrency`?"),
    _bad("Y09", "missing section", _changed("data:\n  file: narratives.csv\n", ""), "section `data` is missing"),
    _bad("Y09", "missing key", _changed("  file: narratives.csv\n", "  sheet: A\n"), "`data.file` is missing"),
    # values
    _bad("Y10", "text for a number", _changed("0.2", '"0.2"'), "`model.temperature` must be a number"),
    _bad("Y10", "not a number", _changed("0.2", ".nan"), "`model.temperature` must be a finite number"),
    _bad("Y10", "infinite", _changed("0.2", ".inf"), "`model.temperature` must be"),
    _bad("Y10", "too large", _changed("0.2", "7"), "`model.temperature` must be at most 2"),
    _bad("Y10", "a prompt for a number", _line(f"  seed: {CANARY}\n"), "`run.seed` must be a whole number"),
    _bad("Y10", "a mapping for a text", _changed("name: doors", "name: {a: 1}"), "`experiment.name` must be text"),
    _bad("Y10", "concurrency", _line("  concurrency: 9999\n"), "`run.concurrency` must be a whole number from 1 to"),
    _bad("Y10", "an id that is a path", _line("  experiment_id: ../../etc\n"), "`run.experiment_id` must be"),
    # addresses and their variables
    _bad(
        "Y11",
        "variable not set",
        _changed("127.0.0.1:9", "${NO_SUCH_HOST}"),
        "NO_SUCH_HOST is not set",
        names_file=False,
    ),
    _bad("Y11", "key in the address", _changed("127.0.0.1:9", "u:canary@127.0.0.1"), "`model.api_url`", "password"),
    _bad("Y11", "key in the query", _changed("completions", "completions?token=canary"), "key in its query"),
    _bad(
        "Y11",
        "a variable that brings a key",
        _changed("127.0.0.1:9", "${HOST_OF_TEST}"),
        "`model.api_url`",
        environment={"HOST_OF_TEST": "u:canary@127.0.0.1"},
        names_file=False,
    ),
    _bad("Y11", "variable in a name", _changed("test-model", "${CANARY}"), "`model.name` uses ${CANARY}", "LLM_MODEL"),
    _bad(
        "Y11",
        "key in a header",
        _line(_URL + "  headers: {X-Key: canary}\n", _URL),
        "`model.headers`: `X-Key` sounds like",
    ),
    _bad(
        "Y11", "no api-version", _changed("v1/chat", "openai/deployments/d/chat"), "`model`", "needs an `api-version`"
    ),
    _bad("Y11", "no address", _changed(_URL, ""), "`api_url` is missing; write it, or set LLM_API_URL"),
    _bad("Y11", "LLM_API_URL", GOOD, "`model.api_url`", "http://", environment={"LLM_API_URL": "file:///canary"}),
    # prompts
    _bad(
        "Y12", "no place for the text", _changed("<<TEXT>>", "<TEXT>"), "`prompt.user_template` must contain <<TEXT>>"
    ),
    _bad(
        "Y12", "blank prompt", _changed(_SYSTEM, '  system_prompt: " "\n'), "`prompt.system_prompt` must not be blank"
    ),
    _bad(
        "Y12",
        "prompt file missing",
        _changed(_TEMPLATE, "  user_template_file: none.txt\n"),
        "`prompt.user_template_file`",
        "no such file",
    ),
    _bad("Y12", "prompt twice", _changed(_SYSTEM, _SYSTEM + "  system_prompt_file: s.txt\n"), "contradict each other"),
    _bad("Y12", "prompt file no text", _changed(_SYSTEM, "  system_prompt_file: .\n"), "`prompt.system_prompt_file`"),
    # keys of the endpoint
    _bad("Y13", "key in the file", _line("  api_key: sk-canary\n", _URL), "`model.api_key_env`"),
    _bad(
        "Y13",
        "variable not set",
        _changed(_URL, _URL + "  api_key_env: NO_SUCH_KEY\n"),
        "NO_SUCH_KEY, which is not set",
        names_file=False,
    ),
    _bad(
        "Y13",
        "two lines",
        _changed(_URL, _URL + "  api_key_env: KEY_OF_TEST\n"),
        "KEY_OF_TEST",
        "not one key on one line",
        environment={"KEY_OF_TEST": "canary\nX-Other: canary"},
        names_file=False,
    ),
    _bad("Y13", "key file missing", _changed(_URL, _URL + "  api_key_file: none.key\n"), "none.key", names_file=False),
    _bad("Y13", "two keys", _changed(_URL, _URL + "  api_key_env: A\n  api_key_file: b\n"), "contradict"),
)
