"""The hospital's running node: what it is made of, and what keeps it running."""
