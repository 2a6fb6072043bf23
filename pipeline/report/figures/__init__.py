"""The panels of the report's figures, one module for each subject."""
