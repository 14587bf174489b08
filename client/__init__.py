"""The hospital: the only code that sees patients."""
