"""The report of a study: one self-contained page, its figures and the numbers behind them."""
