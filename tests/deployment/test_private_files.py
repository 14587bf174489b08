"""Private files are private from their first byte on, and replaced as a whole."""

import os
import stat
from pathlib import Path

from deployment.private_files import make_private_dir, write_atomic, write_private


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_old_file_that_others_could_read_is_replaced_not_reused(tmp_path: Path) -> None:
    for write in (write_private, write_atomic):
        old = tmp_path / write.__name__
        old.write_bytes(b"old")
        old.chmod(0o644)
        with old.open("rb") as reader:
            write(old, b"new")
            assert reader.read() == b"old"
        assert old.read_bytes() == b"new"
        assert mode_of(old) == 0o600


def test_modes_do_not_depend_on_the_mask(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        made = make_private_dir(tmp_path / "d")
        write_private(made / "a", b"")
        write_atomic(made / "b", b"")
    finally:
        os.umask(mask)
    assert (mode_of(made), mode_of(made / "a"), mode_of(made / "b")) == (0o700, 0o600, 0o600)


def test_a_half_written_file_of_a_crash_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / f".f.{os.getpid()}.new").write_bytes(b"half")
    write_atomic(tmp_path / "f", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
