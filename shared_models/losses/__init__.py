"""Losses, each a mean over records of a term of one record alone."""
