"""`narrun simulate`: the simulated endpoint as a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(simulate)


def simulate(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    latency_ms: Annotated[float, typer.Option("--latency-ms", min=0, help="Mean time of an answer.")] = 200.0,
    latency_spread: Annotated[float, typer.Option("--latency-spread", min=0, max=1, help="Its spread.")] = 0.2,
    latency_model: Annotated[str, typer.Option("--latency-model", help="fixed, slots or batching.")] = "fixed",
    slots: Annotated[int, typer.Option(min=1, help="Requests served at a time (slots model).")] = 4,
    batch_slowdown: Annotated[
        float, typer.Option(min=0, help="Share of the latency that each further request adds (batching model).")
    ] = 0.02,
    thrash_above: Annotated[
        int | None,
        typer.Option(min=1, help="With more in flight, throughput falls (batching model).", show_default=False),
    ] = None,
    thrash_slowdown: Annotated[
        float, typer.Option(min=1, help="How many times as small it is beyond --thrash-above.")
    ] = 3.0,
    rate: Annotated[float | None, typer.Option(help="Requests per second; more get 429.", show_default=False)] = None,
    refused_calls_count: Annotated[
        bool, typer.Option("--refused-calls-count", help="Refused requests use up --rate like any other.")
    ] = False,
    fault: Annotated[
        list[str] | None,
        typer.Option("--fault", help="FAULT=SHARE, such as http_500=0.02; may be repeated.", show_default=False),
    ] = None,
    always: Annotated[
        list[str] | None,
        typer.Option("--always", help="TEXT=FAULT: texts that contain TEXT always meet it.", show_default=False),
    ] = None,
    mend_rate: Annotated[
        float, typer.Option("--mend-rate", min=0, max=1, help="Share of malformed answers that a second try mends.")
    ] = 0.0,
    enough_tokens: Annotated[
        int | None,
        typer.Option(
            "--enough-tokens", min=1, help="Truncated answers come whole from this limit on.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides answers, faults and latencies.")] = 0,
    known_model: Annotated[
        list[str] | None,
        typer.Option("--known-model", help="Only these models exist; may be repeated.", show_default=False),
    ] = None,
    require_key: Annotated[
        str | None, typer.Option("--require-key", help="The key that is asked for.", show_default=False)
    ] = None,
    key_header: Annotated[
        str, typer.Option("--key-header", help="Header that it is looked for in; bearer: Authorization.")
    ] = "bearer",
    require_query: Annotated[
        list[str] | None,
        typer.Option("--require-query", help="NAME=VALUE without which there is a 404.", show_default=False),
    ] = None,
    response_format: Annotated[
        list[str] | None,
        typer.Option(
            "--response-format",
            help="TYPE=HANDLING: bind, ignore, refuse or garble answers to it; may be repeated.",
            show_default=False,
        ),
    ] = None,
    refuse_parameter: Annotated[
        list[str] | None,
        typer.Option("--refuse-parameter", help="Request parameters that get 400.", show_default=False),
    ] = None,
    batch: Annotated[
        list[str] | None,
        typer.Option(
            "--batch",
            help="KNOB=NUMBER of its Batch API, such as latency_ms=5000 or expired_share=0.1; may be repeated.",
            show_default=False,
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="Append every request body to this file (it holds prompts).", show_default=False),
    ] = None,
    record_heads: Annotated[
        Path | None,
        typer.Option("--record-heads", help="Likewise path, query and headers, without the key.", show_default=False),
    ] = None,
) -> None:
    """Serve a simulated OpenAI-compatible endpoint until it is stopped; its answers mean nothing.

    Its URL is the one line on standard output. SIGUSR1 takes it down, SIGUSR2 up again; GET /simulation/stats counts
    calls, POST /simulation/behaviour changes how it behaves; /simulation/batches does both for its Batch API.
    """
    from narrun_async.app.simulating import serve_simulation

    serve_simulation(
        host=host,
        port=port,
        record=record,
        record_heads=record_heads,
        on_ready=lambda url: typer.echo(url),
        faults=fault or [],
        always=always or [],
        batch_knobs=batch or [],
        response_formats=response_format or [],
        required_query=require_query or [],
        knobs={
            "seed": seed,
            "latency_model": latency_model,
            "latency_ms": latency_ms,
            "latency_spread": latency_spread,
            "slots": slots,
            "batch_slowdown": batch_slowdown,
            "thrash_above": thrash_above,
            "thrash_slowdown": thrash_slowdown,
            "requests_per_s": rate,
            "refused_calls_count": refused_calls_count,
            "mend_rate": mend_rate,
            "enough_tokens": enough_tokens,
            "known_models": tuple(known_model or ()),
            "auth_key": require_key,
            "auth_header": key_header,
            "unsupported_parameters": tuple(refuse_parameter or ()),
        },
    )
