"""Pipelines: raw input in, answer out."""
