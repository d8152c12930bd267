"""Whether the extra packages are installed that only some commands need; the others start and work without them."""

from __future__ import annotations

from importlib.util import find_spec

from narrun_async.errors import ConfigurationError

_ANALYSIS = ("numpy", "scipy", "sklearn", "statsmodels", "matplotlib", "jinja2")


def has_analysis() -> bool:
    """Whether the extra `analysis` is there; nothing is imported."""
    return all(find_spec(name) is not None for name in _ANALYSIS)


def require_analysis() -> None:
    """:raises ConfigurationError: the extra `analysis` is not installed"""
    if not has_analysis():
        raise ConfigurationError(
            "this needs numpy, scipy, statsmodels, scikit-learn, matplotlib and jinja2, the extra `analysis`",
            advice="`make analysis` installs it",
        )
