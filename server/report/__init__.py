"""The study's report: tables and figures a clinician reads, in one HTML file."""
