"""The client of large transfers, against the bare handlers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import disk
from benchmarks.cases.transfers import download_errand
from benchmarks.messages import Caller
from benchmarks.processes import running
from benchmarks.transfer import BrokenTransfer, Errand, run
from deploy.sandbox.ports import free_port


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Caller]:
    (tmp_path / "file.bin").write_bytes(bytes(3_000_000))
    port = free_port()
    command = ("benchmarks.bare", "--port", str(port), "--folder", str(tmp_path))
    with running(*command, settings={}, folder=tmp_path, name="bare") as child:
        child.wait_until(f"http://127.0.0.1:{port}/bytes/2")
        yield Caller(host="127.0.0.1", port=port)


def test_a_download_is_counted_to_its_last_byte(bare: Caller) -> None:
    found = run(download_errand(bare, "/file/file.bin"))
    assert found["size"] == 3_000_000
    assert 0 < found["first"] <= found["seconds"]


def test_an_upload_counts_the_file_alone(bare: Caller) -> None:
    head = bare.message("POST", "/discard", length=1_000_010, headers={"Connection": "close"})
    errand = Errand(
        host=bare.host, port=bare.port, head=head.decode(), status=200, size=1_000_000,
        before="12345", after="67890",
    )  # fmt: skip
    assert run(errand)["size"] == 1_000_000


def test_another_status_is_no_transfer(bare: Caller) -> None:
    with pytest.raises(BrokenTransfer, match="not 200"):
        run(download_errand(bare, "/file/missing.bin"))


def test_the_disk_floors_leave_nothing_behind(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(10_000))
    assert disk.copy_with_fsync(source, tmp_path / "copy").size == 10_000
    assert disk.place_small_files(tmp_path / "small", 10, 0.01).count > 0
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_zip_into_nothing_counts_all_files_below(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a", "deep/b"):
        (tmp_path / name).write_bytes(b"1234")
    packed, count = disk.zip_into_nothing(tmp_path)
    assert (packed.size, count) == (8, 2)
