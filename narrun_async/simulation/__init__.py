"""A simulated endpoint and synthetic narratives, for demonstrations, tests and benchmarks; never a real model."""
