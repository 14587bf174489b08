"""Every privacy claim the project makes."""
