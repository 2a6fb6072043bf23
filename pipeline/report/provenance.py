"""What was run: records of the jobs, software, fingerprints and settings."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from pipeline.report.study_data import Scene
from pipeline.report.tables import MISSING, HtmlTable


def record_tables(scene: Scene) -> Iterator[HtmlTable]:
    """Runs with their time and memory, versions of the software, fingerprints of what was made."""
    runs = [
        [
            job,
            str(record.get("git_hash", MISSING))[:12],
            f"{record.get('wall_seconds', 0):.1f} s",
            f"{record.get('peak_memory_mib', 0)} MiB",
            _words(record.get("counts", {})) or MISSING,
        ]
        for job, record in scene.records.items()
    ]
    if runs:
        head = ("job", "commit", "wall time", "peak memory", "counts")
        yield HtmlTable("Runs", head, runs, of_words=True)
    versions: dict[str, str] = {}
    made: dict[str, str] = {}
    if scene.manifest is not None:
        versions |= scene.manifest.versions
        made["dataset"] = scene.manifest.fingerprint
    for name, card in scene.cards.items():
        versions |= card.versions
        made[f"model {name}"] = card.fingerprint
    for record in scene.records.values():
        versions |= record.get("versions", {})
    if versions:
        yield HtmlTable("Software", ("package", "version"), [list(v) for v in versions.items()])
    if made:
        yield HtmlTable("Fingerprints", ("of", "fingerprint"), [list(f) for f in made.items()])


def _words(counts: Mapping[str, Any]) -> str:
    """Numbers with their names, those within a count in brackets; lists are left out."""
    words = [
        f"{name.replace('_', ' ')} ({_words(count)})"
        if isinstance(count, Mapping)
        else f"{name.replace('_', ' ')} {count}"
        for name, count in counts.items()
        if isinstance(count, (Mapping, int, float))
    ]
    return ", ".join(words)


def settings_listing(scene: Scene) -> Iterator[tuple[str, str]]:
    """The study as it was resolved."""
    if scene.study:
        text = yaml.safe_dump(dict(scene.study), sort_keys=False, allow_unicode=True)
        yield "Settings of the study, with all defaults", text
