"""Flower's programs as real processes: keys, signed papers, flags, supervision; for both ends."""
