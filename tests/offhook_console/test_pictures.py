"""The pictures in docs/console/ can be taken anew."""

from pathlib import Path

from tests.offhook_console import pictures
from tests.offhook_console.browsing import scene


def test_every_picture_of_the_documents_can_be_taken(tmp_path: Path, password_hash: str) -> None:
    taken = tmp_path / "pictures"
    taken.mkdir()
    (tmp_path / "installation").mkdir()
    folder = tmp_path / "installation"
    with scene(folder, password_hash, pictures.HANDLERS, pictures.prepare) as made:
        pictures.take(made, taken)
    kept = {path.name for path in pictures.FOLDER.iterdir()}
    assert {path.name for path in taken.iterdir()} == kept
    page = (pictures.FOLDER.parent / "console.md").read_text()
    assert all(f"console/{name}" in page for name in kept)
