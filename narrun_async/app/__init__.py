"""The composition root: the only place that names concrete stores, providers and sources, and puts a run together."""
