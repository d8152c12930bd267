"""Owns the rows A of the fault matrix."""

from __future__ import annotations

from fault_matrix.rows import FaultRow

_GOLDEN = "the golden answer {id} through the parser, and through a run over a raw server"


def _answer(id: str, fault: str, required: str) -> FaultRow:
    return FaultRow(id=id, fault=fault, injected=_GOLDEN.format(id=id), required=f"{required}; the raw text is kept")


ROWS: tuple[FaultRow, ...] = (
    _answer("A01", "content is empty", "error row `empty`"),
    _answer("A02", "content is whitespace", "error row `empty`"),
    _answer("A03", "content is null", "error row `empty`"),
    _answer("A04", "content is empty, finish_reason length", "error row `truncated`"),
    _answer("A05", "content is empty, finish_reason content_filter", "error row `content_filter`"),
    _answer("A06", "the refusal field instead of content", "error row `refusal`"),
    _answer("A07", "tool calls only", "error row `no_content`"),
    _answer("A08", "reasoning only, without an answer in it", "error row `no_content`"),
    _answer("A09", "content is a list of text parts", "joined and read"),
    _answer("A10", "an HTML page with status 200", "`bad_envelope`: tried again, an error row only after every pass"),
    _answer(
        "A11", "an event stream with status 200", "`bad_envelope`: tried again, an error row only after every pass"
    ),
    _answer(
        "A12",
        "an error object with status 200",
        "`bad_envelope`: tried again; code and type are kept, its free text is not quoted",
    ),
    _answer("A13", "JSON in a ```json fence", "read, recorded as `fence`"),
    _answer("A14", "prose around the object", "read, recorded as `object`"),
    _answer("A15", "two objects that differ", "error row `ambiguous`, never the first"),
    _answer("A16", 'detected is "yes"', "error row `schema`"),
    _answer("A17", 'detected is "true"', "read, recorded as coerced"),
    _answer("A18", "detected is 1", "error row `schema`"),
    _answer("A19", "confidence is 0. nine", "repaired inside this value only, and recorded"),
    _answer("A20", 'confidence is "0.9"', "read"),
    _answer("A21", "confidence is 95", "error row `confidence_out_of_range`, never divided"),
    _answer("A22", 'confidence is "95%"', "error row `confidence_out_of_range`, never divided"),
    _answer("A23", "confidence is -0.1", "error row `confidence_out_of_range`"),
    _answer("A24", "confidence is 1.0001", "error row `confidence_out_of_range`"),
    _answer("A25", "confidence is null", "read, confidence unknown"),
    _answer("A26", "indicators are one text with commas", "read as a list"),
    _answer("A27", "indicators are an object", "error row `schema`"),
    _answer("A28", "10,000 indicators", "error row `schema`"),
    _answer("A29", "usage is missing", "read, token counts unknown"),
    _answer("A30", "usage of wrong types", "read, token counts unknown"),
    FaultRow(
        id="A31",
        fault="duplicate keys, NaN, 1e999, numbers of 10,000 digits, nesting 100,000 deep, and any bytes whatever",
        injected="such JSON as content and as envelope; random bytes; valid answers with random mutations",
        required="an outcome, never an exception: `bad_json` or what the field says, within 50 ms; 1,000,000 bodies",
    ),
    FaultRow(
        id="A32",
        fault="lone surrogates, NUL and characters of four bytes in the answer and around it",
        injected="a raw server, a run, the database read from outside",
        required="stored, with U+FFFD for what cannot be; the writer lives; every other row too",
    ),
    FaultRow(
        id="A33",
        fault="one answer in ten cannot be read",
        injected="a raw server that draws from the golden answers by the text; the simulated endpoint",
        required="the run ends `completed` with exit 1; the error rows are exactly those injected",
    ),
    FaultRow(
        id="A34",
        fault="an answer that cannot be used, where another might",
        injected="the simulated endpoint, whose answers a reminder or twice the tokens mend; 500, 503, 429, a lost "
        "connection, 400, a timeout or a stop in place of the second call",
        required="asked for once more, once, with something changed; both calls are in the ledger; the second answer "
        "decides, and where none comes the first one stands",
    ),
    FaultRow(
        id="A35",
        fault="answers in the shapes of OpenAI, Azure, vLLM, llama.cpp, Ollama, LM Studio and others",
        injected="golden answers written after what each server sends",
        required="read, thoughts kept apart, and `parse_method` says where the answer stood; or the failure that it is",
    ),
)
