# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Folders and zip files as one interface, and zip files that must not be unpacked."""

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from anomalib_mediclip.prepare.archive import Archive, ArchiveError, open_archive
from tests.unit.prepare.small_sources import zip_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/10.png", "a/2.png", "b/x.txt", ".hidden/1.png", "__MACOSX/a/2.png", "a/Thumbs.db"):
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 1000)
    return tmp_path / "folder"


def read_all(archive: Archive) -> dict[str, bytes]:
    content = {}
    for name in archive.names:
        with archive.open(name) as file, archive.file(name) as path:
            content[str(name)] = file.read()
            assert content[str(name)] == path.read_bytes()
            assert archive.size(name) == len(content[str(name)])
            assert path.name == name.name
    return content


def test_a_folder_and_a_zip_file_of_it_hold_the_same(folder: Path) -> None:
    with open_archive(folder) as first, open_archive(zip_of(folder, with_top=False)) as second:
        assert list(map(str, first.names)) == ["a/2.png", "a/10.png", "b/x.txt"]
        assert first.names == second.names
        assert read_all(first) == read_all(second)


def test_a_zip_file_is_known_by_its_content(folder: Path) -> None:
    renamed = zip_of(folder).rename(folder.parent / "download")
    with open_archive(renamed) as archive:
        assert PurePosixPath("folder/a/2.png") in archive.names


def entry(name: str, mode: int = 0, system: int = 3) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = system
    info.external_attr = mode << 16
    return info


HARMFUL = {
    "../evil.png": "leads out",
    "a/../../evil.png": "leads out",
    "..\\evil.png": "leads out",
    "/etc/evil.png": "absolute",
    "C:/evil.png": "absolute",
    "\\\\server\\evil.png": "absolute",
}


@pytest.mark.parametrize(("name", "fault"), HARMFUL.items())
def test_a_name_that_leads_out_of_the_archive_is_refused_by_name(tmp_path: Path, name: str, fault: str) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.png", b"1")
        archive.writestr(entry(name), b"2")
    with pytest.raises(ArchiveError, match=fault) as error:
        open_archive(path)
    assert repr(name) in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_or_device_is_refused_by_name(tmp_path: Path, kind: int) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(entry("a/link.png", kind | 0o777), b"/etc/passwd")
    with pytest.raises(ArchiveError, match=r"'a/link\.png' is a link or a device"):
        open_archive(tmp_path / "x.zip")


def test_a_name_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("1.png", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("1.png", b"2")
    with pytest.raises(ArchiveError, match=r"'1\.png' is listed twice"):
        open_archive(tmp_path / "x.zip")


def changed(path: Path, change: Callable[[zipfile.ZipInfo], None]) -> Path:
    """Write a zip file whose directory says something else than its content."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("scans/1.png", bytes(10_000))
        change(archive.infolist()[0])
    return path


def test_an_encrypted_entry_is_refused_by_name(tmp_path: Path) -> None:
    def encrypt(info: zipfile.ZipInfo) -> None:
        info.flag_bits |= 1

    with pytest.raises(ArchiveError, match=r"'scans/1\.png' is encrypted"):
        open_archive(changed(tmp_path / "x.zip", encrypt))


def test_an_entry_that_claims_to_be_huge_is_refused_by_name(tmp_path: Path) -> None:
    def inflate(info: zipfile.ZipInfo) -> None:
        info.file_size = 3 << 30

    with pytest.raises(ArchiveError, match=r"'scans/1\.png' claims 3,221,225,472 bytes"):
        open_archive(changed(tmp_path / "x.zip", inflate))


def test_large_files_that_shrink_as_images_do_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomalib_mediclip.prepare.archive.MAX_SHRUNK_SIZE", 100)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", bytes(range(256)) * 2)
    with open_archive(tmp_path / "x.zip") as archive:
        assert archive.size(archive.names[0]) == 512


def test_a_truncated_zip_file_says_so(folder: Path) -> None:
    path = zip_of(folder)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ArchiveError, match=r"source\.zip: cannot be read as a zip file .* again"):
        open_archive(path)


def test_a_damaged_entry_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("scans/1.png", b"content" * 100)
    path.write_bytes(path.read_bytes().replace(b"contentcontent", b"contentCONTENT", 1))
    with (
        open_archive(path) as archive,
        pytest.raises(ArchiveError, match=r"x\.zip: the entry 'scans/1\.png' cannot be unpacked"),
    ):
        read_all(archive)


def test_other_files_and_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"no zip file")
    (tmp_path / "empty").mkdir()
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(ArchiveError, match=r"x\.tar: cannot be read as a zip file .* unpack it yourself"):
        open_archive(tmp_path / "x.tar")
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*nowhere"):
        open_archive(tmp_path / "nowhere")
    for name in ("empty", "empty.zip"):
        with pytest.raises(ArchiveError, match=f"{name} is empty"):
            open_archive(tmp_path / name)
