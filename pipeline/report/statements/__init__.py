"""Statements of the paper (arXiv 2412.04370) that the tables of a study can be held against."""

from pipeline.report.statements import training_size
from pipeline.report.statements.statement import Statement

STATEMENTS: tuple[Statement, ...] = (*training_size.STATEMENTS,)
