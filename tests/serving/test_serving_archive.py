"""The model archive is made beside nobody else's files."""

from __future__ import annotations

import tempfile
import uuid
import zipfile
from pathlib import Path

from serving.torchserve.archive import build_archive
from slicewise.config import ServeConfig


def test_what_another_process_gathers_under_the_same_name_is_left_alone(bundle_dir: Path, tmp_path: Path) -> None:
    name = f"other-{uuid.uuid4().hex[:12]}"
    other = Path(tempfile.gettempdir()) / name / "handler.py"
    other.parent.mkdir()
    try:
        other.write_text("# of another process\n")
        archive = build_archive(bundle_dir, tmp_path / "store", ServeConfig(model_name=name))
        assert other.read_text() == "# of another process\n"
        assert b"another process" not in zipfile.ZipFile(archive).read("handler.py")
        assert [path.name for path in (tmp_path / "store").iterdir()] == [archive.name]
    finally:
        other.unlink(missing_ok=True)
        other.parent.rmdir()
