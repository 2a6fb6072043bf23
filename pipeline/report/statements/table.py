"""The statements of the paper beside what a study finds."""

from collections.abc import Iterator

from pipeline.evaluation.rows import UNCALIBRATED
from pipeline.formats.columns import Target
from pipeline.report.statements import STATEMENTS
from pipeline.report.statements.statement import Finding, Statement
from pipeline.report.study_data import Scene
from pipeline.report.tables import MISSING, HtmlTable

HOLDS, FAILS, NOT_APPLICABLE = "holds", "does not hold", "not applicable"
HEAD = ("statement", "paper", "found", "exact density", "judgement", "of", "figure")
PLURALS = {"holds": "hold", "does not hold": "do not hold", "not applicable": "not applicable"}


def statement_tables(scene: Scene) -> Iterator[HtmlTable]:
    """One row a statement; those that no table of the study can answer are "not applicable"."""
    if not scene.models or scene.target != Target():  # the paper speaks of topo-clusters alone
        return
    rows = [_row(scene, statement) for statement in STATEMENTS]
    found = [row[HEAD.index("judgement")] for row in rows]
    if set(found) == {NOT_APPLICABLE}:
        return
    counts = ", ".join(f"{found.count(mark)} {words}" for mark, words in PLURALS.items())
    yield HtmlTable(f"Statements: {counts}", HEAD, rows, of_words=True, marks=(HOLDS, FAILS))


def _row(scene: Scene, statement: Statement) -> list[str]:
    subject = _subject(scene, statement)
    found = None if subject is None else statement.check(scene, subject)
    exact = None
    if statement.of != "sample" and scene.reference is not None and found is not None:
        exact = statement.check(scene, scene.reference)
    who = "sample" if statement.of == "sample" else _label(scene, statement, subject)
    return [
        statement.words,
        statement.paper,
        MISSING if found is None else found.found,
        MISSING if exact is None else exact.found,
        _judge(found),
        who,
        statement.figure,
    ]


def _subject(scene: Scene, statement: Statement) -> str | None:
    return UNCALIBRATED if statement.of == "sample" else scene.model_of_kind(statement.of)


def _label(scene: Scene, statement: Statement, subject: str | None) -> str:
    if subject is not None:
        return scene.look(subject).label
    return statement.of.replace("_", " ")


def _judge(found: Finding | None) -> str:
    if found is None:
        return NOT_APPLICABLE
    return HOLDS if found.holds else FAILS
