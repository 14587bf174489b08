"""An audit's file: the same bytes, and refused in one sentence."""

import json
from pathlib import Path

import pytest

from privacy.audit.document import AuditDocument, AuditFigure, load_audit, save_audit
from protocol.errors import PayloadError

FIGURE = {"network": "U-Net", "attack": "likelihood ratio", "measure": "AUC", "value": 0.7}
AUDIT = AuditDocument(
    subject="phantoms", code_version="1", figures=(AuditFigure(**FIGURE, low=0.6, high=0.8),)
)


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    save_audit(AUDIT, path)
    written = path.read_bytes()
    assert load_audit(path) == AUDIT
    save_audit(load_audit(path), path)
    assert path.read_bytes() == written


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epsilon": 1.0}, "epsilon and delta are told together"),
        ({"low": 0.1}, "a low and a high end"),
        ({"epsilon": -1.0, "delta": 1e-5}, "figures.0.epsilon"),
        ({"patient": "x"}, "figures.0.patient"),
        ({"attack": "x" * 201}, "figures.0.attack"),
    ],
)
def test_wrong_figures_are_refused(change: dict, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    values = {"subject": "s", "code_version": "1", "figures": [{**FIGURE, **change}]}
    path.write_text(json.dumps(values))
    with pytest.raises(PayloadError, match=sentence):
        load_audit(path)


def test_no_file_no_json_and_no_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    with pytest.raises(PayloadError, match="cannot be read as an audit"):
        load_audit(path)
    path.write_text("{")
    with pytest.raises(PayloadError, match=r"audit\.json"):
        load_audit(path)
    path.write_text(json.dumps({"subject": "s", "code_version": "1", "figures": []}))
    with pytest.raises(PayloadError, match="at figures"):
        load_audit(path)
    path.write_bytes(b" " * (8 * 2**20 + 1))
    with pytest.raises(PayloadError, match="larger than 8 MiB"):
        load_audit(path)
