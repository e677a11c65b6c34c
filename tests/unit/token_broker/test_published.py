from pathlib import Path

from services.token_broker.published import PublishedSerials


def test_a_recorded_gateway_is_read_by_the_next_process(tmp_path: Path) -> None:
    """Files with other names are ignored."""
    published = PublishedSerials(tmp_path / "published")
    assert published.read() == set()

    published.add("122012345678")
    published.add("122012345678")
    (tmp_path / "published" / ".hidden").touch()

    assert PublishedSerials(tmp_path / "published").read() == {"122012345678"}


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """It has the same name and is empty too."""
    (tmp_path / "122012345678").touch()

    published = PublishedSerials(tmp_path)
    published.add("122012345678")

    assert published.read() == {"122012345678"}
