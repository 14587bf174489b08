"""What the browser gets: one page, its style and its script; nothing from anywhere else."""
