"""Statements of the paper (arXiv 2412.04370) that the tables of a study can be held against."""

from pipeline.report.statements import closure, ridges, spectra, training_size, uncertainty
from pipeline.report.statements.statement import Statement

# In the order of the paper's figures.
STATEMENTS: tuple[Statement, ...] = (
    *spectra.STATEMENTS,
    *ridges.STATEMENTS,
    *closure.PREDICTION,
    *closure.LINEARITY,
    *closure.RESOLUTION,
    *training_size.STATEMENTS,
    *uncertainty.PAIRS,
    *uncertainty.PULLS,
    *spectra.UNCERTAIN_CLUSTERS,
    *spectra.FEATURES,
    *closure.APPENDIX,
)
