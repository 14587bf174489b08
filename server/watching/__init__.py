"""Watching a run: read from what it writes, shown in a terminal or a browser."""
