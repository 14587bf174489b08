"""The hash of the code: every file counts, and no other."""

import hashlib
from pathlib import Path

from protocol import code


def test_every_byte_and_every_name_counts(monkeypatch, tmp_path: Path) -> None:
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("a"), two.write_text("b")

    def of(*sources: tuple[str, Path]) -> str:
        monkeypatch.setattr(code, "_sources", lambda: list(sources))
        code.code_hash.cache_clear()
        return code.code_hash()

    first = of(("p/one.py", one), ("p/two.py", two))
    assert of(("p/two.py", one), ("p/one.py", two)) != first
    assert of(("p/one.py", one)) != first
    two.write_text("c")
    assert of(("p/one.py", one), ("p/two.py", two)) != first
    code.code_hash.cache_clear()


def test_the_files_are_ours_and_sorted() -> None:
    names = [name for name, _ in code._sources()]
    assert names == sorted(names)
    assert {"client/app.py", "server/report/templates/report.html.j2"} & set(names)
    assert not [name for name in names if "__pycache__" in name]
    assert {name.split("/")[0] for name in names} == set(code.PACKAGES)
    code.code_hash.cache_clear()
    assert len(code.code_hash()) == hashlib.sha256().digest_size * 2
