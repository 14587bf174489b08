"""What both sides agree on: configuration, payloads, arrays, statistics, seeds, errors."""
