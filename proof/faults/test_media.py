"""How campaigns look at the bytes of a store while its servers run."""

import hashlib
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from proof.faults.media import Bucket, Folder
from proof.faults.place import place_of


def test_an_object_that_is_deleted_after_the_listing_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, store = Bucket("s3://media/set/1", {}), MemoryStore()
    monkeypatch.setattr(bucket, "_store", store)
    for name in ("parts/a/kept", "parts/a/gone"):
        obstore.put(store, name, b"bytes")
    listed = bucket._names("parts")
    monkeypatch.setattr(bucket, "_names", lambda _: listed)
    obstore.delete(store, "parts/a/gone")
    assert bucket.parts() == {("a", "kept"): hashlib.sha256(b"bytes").hexdigest()}


def test_a_file_that_is_deleted_after_the_listing_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "blobs/00").mkdir(parents=True)
    (tmp_path / "packs").mkdir()
    kept, gone = (tmp_path / "blobs/00" / name for name in ("00kept", "00gone"))
    kept.write_bytes(b"bytes")
    monkeypatch.setattr(Folder, "_files", lambda _: iter((kept, gone)))
    assert Folder(tmp_path).sums() == {"00kept": hashlib.sha256(b"bytes").hexdigest()}


def test_a_spool_that_is_gone_has_no_files(tmp_path: Path) -> None:
    """ext4 without a journal may lose a new folder in which no file was ever synced."""
    place, spool = place_of(tmp_path), tmp_path / "media/spool"
    assert list(place.spooled()) == []
    spool.mkdir(parents=True)
    (spool / "a").touch()
    assert list(place.spooled()) == [spool / "a"]
