"""Scoring: normalised texts, edits, word times, calibration, and the report of them all. Knows no model."""
