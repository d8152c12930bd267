"""Owns what a batch is before and after the provider has it: its life, its identifiers, its requests. Pure.

`states` is the life of a batch as one table, `requests` the lines of its file and how they are known again, `shards`
how a remaining set is cut into files, `spending` what a batch is expected to use.
"""
