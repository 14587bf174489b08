"""Flower's SuperLink, as a consortium runs it: doors, database, and shorter ways for models."""
