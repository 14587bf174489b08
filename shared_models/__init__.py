"""Networks, losses, metrics and clinical quantities: torch in, torch out.

Nothing is imported here: a hospital's readers need the label convention and not torch.
"""
