"""The study's report: tables and figures a clinician reads, in one HTML file."""

from server.report.examples import Example
from server.report.write import render_report, write_report

__all__ = ["Example", "render_report", "write_report"]
