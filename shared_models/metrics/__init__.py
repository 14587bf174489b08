"""Measures of agreement between two segmentations."""
