"""Look-up tables: a calibration in bins, in the style of local fine bin weighting."""
