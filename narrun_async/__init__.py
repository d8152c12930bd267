"""Classify case narratives with an LLM: bounded concurrency, exactly-once rows, resume after any kill."""

__version__ = "0.1.0"
