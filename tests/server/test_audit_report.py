"""The audit's section of the report: every figure in its place, and nothing unescaped."""

from pathlib import Path

from privacy.audit.document import AuditDocument, AuditFigure, save_audit
from server.cli import report
from server.report.audit_table import audit_table
from server.report.write import render_report
from server.results import Results, save_results

# The smallest study: what is drawn of a larger one has tests of its own.
VALUES = {
    "study": {"name": "small", "seed": 1, "code_version": "1"},
    "hospitals": [{"name": "a", "role": "train", "patients": 20}],
}


def figure(value: float, **other: object) -> AuditFigure:
    base = {"network": "U-Net", "attack": "likelihood ratio", "measure": "AUC"}
    return AuditFigure.model_validate({**base, "value": value, **other})


AUDIT = AuditDocument(
    subject="Phantoms <b>of</b> the demo",
    code_version="<i>v1</i>",
    figures=(
        figure(0.55, epsilon=1.1, delta=1e-5),
        figure(0.751, low=0.7, high=0.8, guessing=0.5),
        figure(0.6, epsilon=9.06, delta=1e-3),
        figure(61.2, attack="<script>alert(1)</script>", measure="PSNR"),
        figure(-0.0, network="Table", attack="canaries", measure="bound", epsilon=1.1, delta=1e-5),
    ),
    notes=("A note with <u>marks</u>.",),
)


def test_rows_and_columns_are_in_order() -> None:
    table = audit_table(AUDIT)
    assert table is not None
    titles = [column.title for column in table.columns]
    assert titles == ["Without privacy", "ε 9.1, δ 0.001", "ε 1.1, δ 1e-05", "Guessing"]
    assert [row.label for row in table.rows if row.heading] == ["U-Net", "Table"]
    assert table.rows[1].cells == ("0.75\n0.70 to 0.80", "0.60", "0.55", "0.50")
    assert table.rows[2].cells == ("61.20", "–", "–", "–")
    assert table.rows[4].cells == ("–", "–", "0.00", "–")
    assert audit_table(None) is None


def test_the_section_is_there_only_with_an_audit_and_escaped() -> None:
    assert "What attackers found" not in render_report(VALUES)
    page = render_report(VALUES, audit=AUDIT)
    assert "What attackers found" in page
    for raw in ("<script>", "<b>of</b>", "<i>v1</i>", "<u>marks</u>"):
        assert raw not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;: PSNR" in page
    assert page == render_report(VALUES, audit=AUDIT)


def test_the_command_attaches_a_file(tmp_path: Path) -> None:
    save_results(Results.of(VALUES), tmp_path / "results.json")
    save_audit(AUDIT, tmp_path / "audit.json")
    report(tmp_path, audit=tmp_path / "audit.json")
    assert "What attackers found" in (tmp_path / "report.html").read_text(encoding="utf-8")
    report(tmp_path)
    assert "What attackers found" not in (tmp_path / "report.html").read_text(encoding="utf-8")
