"""Owns how intervals are drawn unless a person wants otherwise: one measure has one interval, wherever it is told."""

from __future__ import annotations

DEFAULT_RESAMPLES = 10_000
DEFAULT_SEED = 1
