"""The same work through public alternatives, each in an environment of its own; see `run` and ../README.md."""
