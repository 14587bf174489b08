"""What both sides must agree on: configuration, payloads, array algebra, statistics, seeds, errors."""
