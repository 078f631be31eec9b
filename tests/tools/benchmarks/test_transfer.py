"""Large transfers against the bare handlers, and the baselines of the disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.baselines import disk
from benchmarks.isolation import ToolFailed, in_own_process
from benchmarks.messages import Endpoint
from benchmarks.transfer import BrokenTransfer, Request, perform
from deploy.sandbox.ports import free_port
from devtools.postgres import run_apart
from devtools.services import Process


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder, port = tmp_path_factory.mktemp("bare"), free_port()
    (folder / "file.bin").write_bytes(bytes(3_000_000))
    process = Process(
        "benchmarks.baselines.handlers", {}, folder, admin_port=port, ready="/bytes/2",
        arguments=[str(port), str(folder)],
    )  # fmt: skip
    run_apart(process.wait_until_ready())
    yield Endpoint("127.0.0.1", port)
    process.stop()


def test_a_download_is_counted_to_its_last_byte(bare: Endpoint) -> None:
    moved = perform(Request(bare, "GET", "/file/file.bin"))
    assert moved.size == 3_000_000
    assert 0 < moved.first_byte <= moved.seconds


def test_the_size_of_an_upload_is_that_of_the_file(bare: Endpoint) -> None:
    moved = perform(Request(bare, "POST", "/discard", upload=(1 << 20) + 5))
    assert moved.size == (1 << 20) + 5


def test_another_status_is_no_transfer(bare: Endpoint) -> None:
    with pytest.raises(BrokenTransfer, match="404 instead of 200"):
        perform(Request(bare, "GET", "/file/missing.bin"))


def test_a_failure_in_a_process_of_its_own_is_shown() -> None:
    with pytest.raises(ToolFailed, match="invalid literal"):
        in_own_process(int, "no number")


def test_baselines_of_the_disk_leave_nothing_behind(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(10_000))
    assert disk.copy_with_fsync(source, tmp_path / "copy").size == 10_000
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
