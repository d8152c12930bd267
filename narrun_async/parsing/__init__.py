"""Turns the bytes of an HTTP answer into a verdict. Pure and total: nothing makes it raise; no value is invented.

body ── parse_envelope ──► Envelope ── parse_answer ──► Detection | Failure
"""

from narrun_async.parsing.answer import parse_answer
from narrun_async.parsing.batch_lines import MAX_LINE_BYTES, parse_batch_line
from narrun_async.parsing.envelope import MAX_BODY_BYTES, parse_envelope
from narrun_async.parsing.texts import stored_raw

__all__ = ["MAX_BODY_BYTES", "MAX_LINE_BYTES", "parse_answer", "parse_batch_line", "parse_envelope", "stored_raw"]
