"""The coordinating centre: sees updates and sums, never an image, never a patient."""
