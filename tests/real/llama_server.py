"""Serves one model with llama.cpp's own OpenAI server, for as long as its standard input stays open.

A process of its own, so that it can be killed; bound to its standard input, so that whoever started it cannot leave it
behind, not even by dying of SIGKILL. Prints the address once it answers.
"""

from __future__ import annotations

import argparse
import os
import sys

import xllamacpp


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("model")
    options.add_argument("--port", type=int, required=True, help="0: a free one")
    options.add_argument("--slots", type=int, required=True)
    options.add_argument("--slot-tokens", type=int, required=True, help="context of one slot")
    options.add_argument("--shared", action="store_true", help="that context is one cache for all slots together")
    options.add_argument("--api-key")
    given = options.parse_args()

    params = xllamacpp.CommonParams()
    params.model.path = given.model
    params.port = given.port
    params.n_parallel = given.slots
    params.kv_unified = given.shared
    # llama.cpp divides it among the slots, unless they share it
    params.n_ctx = given.slot_tokens * (1 if given.shared else given.slots)
    if given.api_key is not None:
        params.api_keys = [given.api_key]
    # Its threads spin while they wait for each other: with two of them on two busy cores 200 answers took 38 s, with
    # one 7 s.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.buffer.read()
    os._exit(0)  # leaving in the usual way would wait for the answers that are under way


main()
