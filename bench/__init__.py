"""Measures the program as a whole process against floors that do the same work and nothing else; see README.md."""
