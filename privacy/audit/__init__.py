"""Attacks on our own releases: what an adversary gets, in figures anybody can recompute."""
