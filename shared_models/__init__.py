"""Networks, losses, metrics and clinical quantities: torch in, torch out."""
