"""Where the answers come from: data, prompts, model, settings, machines, and whether any of them changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath

from narrun_async.models import text_sha256
from narrun_async.reporting.html.blocks import (
    Aside,
    Block,
    Fact,
    Facts,
    Fold,
    Heading,
    Paragraph,
    Row,
    Section,
    Table,
    Tone,
    Verbatim,
)
from narrun_async.reporting.html.material import ReportMaterial
from narrun_async.reporting.html.wording import DASH, clean, clean_lines, plural
from narrun_async.reporting.measure_text import percent_of

_COLUMNS = {
    "author of the experiment": "prompt_author",
    "notes": "notes",
    "created": "created_at",
    "model": "model_name",
    "provider": "model_provider",
    "endpoint": "api_url",
    "temperature": "temperature",
    "seed": "run_seed",
    "prompt version": "prompt_version",
}


def provenance_section(material: ReportMaterial) -> Section:
    blocks: list[Block] = [
        Facts(items=tuple(_facts(material))),
        *_instrument(material),
        *_prompts(material),
        *_settings(material),
    ]
    return Section(slug="provenance", title="Provenance", blocks=tuple(blocks))


def _facts(material: ReportMaterial) -> Iterator[Fact]:
    yield Fact(name="experiment", value=material.experiment.experiment_id)
    for name, column in _COLUMNS.items():
        if (value := material.column(column)) is not None:
            yield Fact(name=name, value=clean(value))
    if (file := material.column("config_file")) is not None:
        yield Fact(name="configuration file", value=clean(PurePath(file).name))
    if material.source is not None:
        file = clean(PurePath(material.source.path).name)
        yield Fact(name="data", value=f"{file}, loaded {material.source.loaded_at}")
    if checksum := material.experiment.cohort.data_checksum:
        kind = "SHA-256" if len(checksum) == 64 else "checksum"
        yield Fact(name=f"{kind} of the data", value=checksum)
    if material.experiment.config_sha256 is not None:
        yield Fact(name="SHA-256 of the settings", value=material.experiment.config_sha256)
    if material.screening is not None:
        yield Fact(name="placeholders were known by", value=f"the rules {clean(material.screening.rules)}")
    yield from _privacy_facts(material)
    hosts = dict.fromkeys(run.host for run in material.runs if run.host)
    if hosts:
        yield Fact(name="worked on by", value=", ".join(map(clean, hosts)))
    versions = dict.fromkeys(run.narrun_version for run in material.runs if run.narrun_version)
    yield Fact(name="program", value=f"narrun_async {', '.join(map(clean, versions)) or 'of unknown version'}")
    written = material.written_at.strftime("%Y-%m-%d %H:%M UTC")
    yield Fact(name="this report", value=f"narrun_async {material.narrun_version}, {written}")


def _privacy_facts(material: ReportMaterial) -> Iterator[Fact]:
    allowed = material.settings.get("privacy.allow_remote")
    if allowed == "true":
        note = f": {clean(material.approval_note)}" if material.approval_note else ""
        yield Fact(name="where narratives may go", value=f"to addresses beyond private networks, approved{note}")
    elif allowed == "false":
        yield Fact(name="where narratives may go", value="to this machine and private networks only")
    if material.scrub is not None:
        value = f"removed from the database on {material.scrub.scrubbed_at[:10]}"
        yield Fact(name="texts of narratives", value=value)


def _instrument(material: ReportMaterial) -> Sequence[Block]:
    """Whether the same model answered all along."""
    blocks: list[Block] = [Heading(text="Was it the same instrument all along?")]
    overridden = [run for run in material.runs if run.api_url_overridden]
    if not material.servings:
        blocks.append(Paragraph(text="The endpoint did not say which model answered, or it was not recorded."))
    else:
        rows = tuple(
            Row(
                head=clean(use.serving.model or "unnamed"),
                cells=(
                    clean(use.serving.system_fingerprint or DASH),
                    clean(use.serving.server or DASH),
                    DASH if use.run_id is None else str(use.run_id),
                    (use.first_seen_at or DASH)[:19].replace("T", " "),
                    f"{use.n_results:,}",
                ),
            )
            for use in material.servings
        )
        head = ("Model, as it names itself", "Fingerprint", "Server", "First in run", "First seen (UTC)", "Results")
        blocks.append(Table(caption="Who answered", head=head, rows=rows, is_prose=True))
    identities = {(use.serving.model, use.serving.system_fingerprint) for use in material.servings}
    if len(identities) > 1:
        text = "More than one model or version answered. Their answers are those of different instruments."
        blocks.append(Aside(tone=Tone.WARNING, text=text))
    if overridden:
        urls = ", ".join(dict.fromkeys(clean(run.api_url or "") for run in overridden))
        runs = ", ".join(str(run.run_id) for run in overridden)
        blocks.append(Aside(tone=Tone.NOTE, text=f"In run {runs} another address was called: {urls}."))
    blocks.append(Paragraph(text=_canary_words(material)))
    return blocks


def _canary_words(material: ReportMaterial) -> str:
    canaries = material.canaries
    if not canaries.n_asked:
        return "No narrative was asked again to see whether it would be answered alike."
    if not canaries.n_answered:
        return f"{plural(canaries.n_asked, 'narrative')} were asked again; none was answered."
    return (
        f"To see whether answers stay the same, {plural(canaries.n_asked, 'narrative')} were asked again in mid-work: "
        f"{canaries.n_flipped:,} of {plural(canaries.n_answered, 'answer')} "
        f"({percent_of(canaries.n_flipped / canaries.n_answered)}) came out the other way."
    )


def _prompts(material: ReportMaterial) -> Sequence[Block]:
    blocks: list[Block] = [Heading(text="The question, as it was asked")]
    named = {"System prompt": material.system_prompt, "User template": material.user_template}
    for name, text in named.items():
        if text:
            summary = f"{name}, {len(text):,} characters, SHA-256 {text_sha256(text)}"
            blocks.append(Fold(summary=summary, blocks=(Verbatim(text=clean_lines(text)),)))
        else:
            blocks.append(Paragraph(text=f"{name}: none."))
    return blocks


def _settings(material: ReportMaterial) -> Sequence[Block]:
    if not material.settings:
        return [Paragraph(text="The experiment has no snapshot of its settings: it was made by an earlier program.")]
    facts = Facts(items=tuple(_setting(key, value) for key, value in material.settings.items()))
    return [Fold(summary=f"All {len(material.settings)} frozen settings", blocks=(facts,))]


def _setting(key: str, value: str) -> Fact:
    """Of files only their names: where they lay says something of the person who worked there."""
    is_file = key.endswith(("file", "rules")) and "/" in value
    return Fact(name=key, value=clean(PurePath(value).name if is_file else value))
