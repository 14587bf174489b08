"""Survival heads: likelihood, survival curve and risk from the outputs of a network."""
