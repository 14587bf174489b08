"""The ways of running the two apps, unchanged: in this process, on Ray, as real processes."""
