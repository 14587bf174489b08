"""Aggregation rules as in their papers: arrays in, arrays out."""
