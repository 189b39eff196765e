"""Evaluation: metrics and the report that a person reads."""
