"""Phantom hospitals, and a whole consortium in one process."""
