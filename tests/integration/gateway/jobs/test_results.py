"""A job's files, all of them as a zip, and the end of its log."""

import asyncio
import io
import os
import shutil
import subprocess
import zipfile
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from common.database.engine import Database
from common.database.tables import jobs
from common.storage.paths import UserPath
from devtools.postgres import run_apart
from devtools.user_pool import Issuer
from gateway.files.handlers import STORAGE
from gateway.http.budgets import Budget, Kind, budgets
from gateway.http.keys import SHARES
from gateway.http.limits import user_caller
from gateway.jobs.results import tail
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import Api, Gateway, Reply, on_both_databases, on_both_storages

LARGE = bytes(range(256)) * 1_000


def in_gateway(gateway: Gateway, work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run_coroutine_threadsafe(work, gateway.loop).result(30)


def store(api: Api, path: str, content: bytes = b"content") -> None:
    """Put a file into the caller's tree as workers do, on any storage."""

    async def chunks() -> AsyncIterator[bytes]:
        yield content

    assert api.gateway.app is not None
    storage = api.gateway.app[STORAGE]
    in_gateway(api.gateway, storage.write(UserPath(api.user, tuple(path.split("/"))), chunks()))


def change(api: Api, job_id: int, **values: Any) -> None:
    """Change a job's row past the API."""

    async def run() -> None:
        database = Database(api.gateway.settings.database)
        try:
            async with database.transaction() as tx:
                await tx.execute(update(jobs).where(jobs.c.id == job_id).values(**values))
        finally:
            await database.close()

    run_apart(run())


def job_with(api: Api, files: dict[str, bytes], **changes: Any) -> tuple[int, str]:
    """Id and name of a job that has results: `log/x` is stored as `log/<name>/x`."""
    job = api.new_job(**changes)
    for path, content in files.items():
        kind, _, rest = path.partition("/")
        store(api, f"{kind}/{job['job_name']}/{rest}", content)
    return job["id"], job["job_name"]


def packed(reply: Reply) -> dict[str, bytes]:
    assert reply.status == 200, reply
    with zipfile.ZipFile(io.BytesIO(reply.body)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def log_of(api: Api, job_id: int, lines: int | None = None) -> str:
    reply = api.get(f"/jobs/{job_id}/log" + (f"?lines={lines}" if lines else ""))
    assert reply.status == 200, reply
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.headers["x-content-type-options"] == "nosniff"
    return reply.text


# -- files ----------------------------------------------------------------------------------------


@on_both_storages
@pytest.mark.parametrize("details", ["false", "true"])
def test_a_jobs_files_are_shown_as_in_listings_sorted_by_path(api: Api, details: str) -> None:
    files = {"output/b": b"1", "output/a/deep": LARGE, "log/l": b"", "artifact/ü": b"22"}
    job, name = job_with(api, files)
    store(api, f"output/{name}-not/f")
    found = api.get(f"/jobs/{job}/files?details={details}").json()
    options = f"recursive=true&show_dirs=false&details={details}"
    listed = [
        entry
        for kind in ("artifact", "log", "output")
        for entry in api.get(f"/files/{kind}/{name}?{options}").json()
    ]
    assert found == listed
    paths = [entry["path"] for entry in found]
    assert paths == sorted(f"{path.replace('/', f'/{name}/', 1)}" for path in files)
    if details == "false":
        assert api.get(f"/jobs/{job}/files").json() == found


@on_both_storages
def test_a_job_without_files_has_an_empty_list(api: Api) -> None:
    reply = api.get(f"/jobs/{api.new_job()['id']}/files")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json() == []


def test_thousands_of_files_are_listed(api: Api) -> None:
    job = api.new_job()
    for kind in ("log", "output"):
        folder = api.tree / kind / job["job_name"]
        folder.mkdir(parents=True)
        for number in range(1_100):
            (folder / f"{number:04}").touch()
    paths = [entry["path"] for entry in api.get(f"/jobs/{job['id']}/files").json()]
    assert len(paths) == 2_200
    assert paths == sorted(paths)


@on_both_databases
@pytest.mark.parametrize(
    ("paths_out", "expected"),
    [
        ({"output": "output", "log": "log/", "artifact": "/"}, []),
        ({"output": "../OTHER/output/x", "log": "", "artifact": None}, []),
        ({"output": "output/x/", "log": "output/x/in", "artifact": 5}, ["in/f", "out"]),
        ({"output": "output//x", "else": "output/else"}, ["in/f", "out"]),
        (["output/x"], []),
    ],
)
def test_paths_of_adopted_jobs_lead_to_their_own_directories_only(
    api: Api, other: Api, paths_out: Any, expected: list[str]
) -> None:
    other.plant("output/x/secret")
    for path in ("output/x/out", "output/x/in/f", "output/else/f", "log/f", "data/f"):
        api.plant(path)
    if isinstance(paths_out, dict) and "OTHER" in str(paths_out):
        paths_out["output"] = paths_out["output"].replace("OTHER", other.user)
    job = api.new_job()["id"]
    change(api, job, paths_out=paths_out)
    paths = [entry["path"] for entry in api.get(f"/jobs/{job}/files").json()]
    assert paths == [f"output/x/{path}" for path in expected]
    assert api.get(f"/jobs/{job}/download").status == (200 if expected else 404)
    assert log_of(api, job) == ("content" if "output/x/in" in str(paths_out) else "")


@pytest.mark.parametrize("what", ["files", "download", "log"])
def test_jobs_of_others_have_no_results(api: Api, other: Api, what: str) -> None:
    theirs, _ = job_with(other, {"log/l": b"secret", "output/o": b"secret"})
    for job in (theirs, 0, 2**31, 2**70):
        reply = api.get(f"/jobs/{job}/{what}")
        assert (reply.status, reply.detail) == (404, "Job not found")
    assert other.get(f"/jobs/{theirs}/{what}/").status == 200
    assert api.get(f"/jobs/x/{what}").faults() == {(("path", "job_id"), "int_parsing")}


def test_details_are_a_flag(api: Api) -> None:
    reply = api.get(f"/jobs/{api.new_job()['id']}/files?details=perhaps")
    assert reply.faults() == {(("query", "details"), "bool_parsing")}


# -- the zip --------------------------------------------------------------------------------------


@on_both_storages
def test_a_zip_holds_a_jobs_files_by_kind(api: Api) -> None:
    files = {"output/b": LARGE, "output/a/deep": b"1", "log/l": b"", "artifact/ü": b"22"}
    job, name = job_with(api, files)
    reply = api.get(f"/jobs/{job}/download")
    assert packed(reply) == files
    assert reply.headers["content-type"] == "application/zip"
    assert reply.headers["content-disposition"] == f'attachment; filename="{name}.zip"'
    assert reply.headers["content-length"] == str(len(reply.body))
    head = api.send("HEAD", f"/jobs/{job}/download")
    assert (head.status, head.body) == (200, b"")
    for header in ("content-type", "content-disposition", "content-length"):
        assert head.headers[header] == reply.headers[header]


@on_both_storages
def test_a_job_without_files_has_no_zip(api: Api) -> None:
    job = api.new_job()
    reply = api.get(f"/jobs/{job['id']}/download")
    assert (reply.status, reply.detail) == (404, "The job has no files yet")
    assert api.send("HEAD", f"/jobs/{job['id']}/download").status == 404


def test_empty_directories_are_no_files(api: Api) -> None:
    job = api.new_job()
    (api.tree / "output" / job["job_name"] / "deep").mkdir(parents=True)
    assert api.get(f"/jobs/{job['id']}/files").json() == []
    assert api.get(f"/jobs/{job['id']}/download").status == 404


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("ü", "attachment; filename=\"_.zip\"; filename*=UTF-8''%C3%BC.zip"),
        (None, 'attachment; filename="job_{}.zip"'),
    ],
)
def test_a_zip_is_named_after_its_job(api: Api, name: str | None, header: str) -> None:
    job, _ = job_with(api, {"output/f": b"1"})
    change(api, job, job_name=name)
    reply = api.get(f"/jobs/{job}/download")
    assert reply.headers["content-disposition"] == header.format(job)


@pytest.mark.parametrize("limit", [{"MAX_ZIP_FILES": "2"}, {"MAX_ZIP_BYTES": "20"}], ids=str)
def test_the_limits_of_zips_hold_over_all_kinds(
    start_gateway: StartGateway, issuer: Issuer, limit: dict[str, str]
) -> None:
    api = Api(start_gateway(**limit), "user", issuer.token("user"))
    job, name = job_with(api, {"output/1": bytes(10), "log/2": bytes(10)})
    assert len(packed(api.get(f"/jobs/{job}/download"))) == 2
    store(api, f"artifact/{name}/3", b"1")
    assert api.get(f"/jobs/{job}/download").status == 413


@on_both_storages
def test_a_zip_of_results_is_unpacked_from_a_pipe(api: Api, tmp_path: Path) -> None:
    if shutil.which("jar") is None:
        pytest.skip("jar (a JDK) is not installed")
    files = {"output/small": b"aaa", "log/large": LARGE}
    job, _ = job_with(api, files)
    body = api.get(f"/jobs/{job}/download").body
    subprocess.run(["jar", "x"], input=body, cwd=tmp_path, check=True)
    found = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert {str(path.relative_to(tmp_path)): path.read_bytes() for path in found} == files


# -- the log --------------------------------------------------------------------------------------


@on_both_storages
def test_the_log_is_the_last_lines_of_its_only_file(api: Api) -> None:
    text = "".join(f"line {number} ü\n" for number in range(30_000))
    job, _ = job_with(api, {"log/deep/train.log": text.encode(), "output/o": b"no log\n"})
    every = text.splitlines(keepends=True)
    assert log_of(api, job) == "".join(every[-200:])
    for lines in (1, 2, 9_999, 10_000):
        assert log_of(api, job, lines) == "".join(every[-lines:])


@on_both_storages
def test_several_files_are_shown_as_tail_shows_them(api: Api, tmp_path: Path) -> None:
    files = {
        "a.log": b"1\n2\n3\n", "b.log": b"no end", "c.log": b"", "deep/d.log": b"\n\n", "e": b"1"
    }  # fmt: skip
    job, _ = job_with(api, {f"log/{name}": content for name, content in files.items()})
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for lines in (1, 2, 200):
        expected = subprocess.run(
            ["tail", "-n", str(lines), *files], cwd=tmp_path, check=True, capture_output=True
        )
        assert log_of(api, job, lines) == expected.stdout.decode()


def test_the_newest_file_is_last(api: Api) -> None:
    job = api.new_job()
    for moment, file in enumerate("cab"):
        path = api.plant(f"log/{job['job_name']}/{file}", file.encode() + b"\n")
        os.utime(path, (moment, moment))
    assert log_of(api, job["id"]) == "==> c <==\nc\n\n==> a <==\na\n\n==> b <==\nb\n"


@pytest.mark.parametrize(
    ("lines", "kind"), [("0", "value_error"), ("10001", "value_error"), ("x", "int_parsing")]
)
def test_lines_are_a_number_from_1_to_10000(api: Api, lines: str, kind: str) -> None:
    reply = api.get(f"/jobs/{api.new_job()['id']}/log?lines={lines}")
    assert reply.faults() == {(("query", "lines"), kind)}


@on_both_databases
@pytest.mark.parametrize("files", [{}, {"log/empty": b"", "log/too": b""}], ids=["none", "empty"])
def test_without_lines_in_files_the_log_is_the_end_of_the_details(
    api: Api, files: dict[str, bytes]
) -> None:
    job, _ = job_with(api, files)
    assert log_of(api, job) == ""
    api.report(job, "running", "first ü")
    api.report(job, "running", "second")
    assert log_of(api, job) == "first ü\nsecond"
    assert log_of(api, job, 1) == "second"


@on_both_databases
def test_of_longer_details_than_are_kept_the_end_is_read(api: Api) -> None:
    job = api.new_job()["id"]
    change(api, job, runtime_details="old\n" * 1_000_000 + "end")
    assert log_of(api, job, 2) == "old\nend"
    change(api, job, runtime_details="x" * (1 << 20) + "end")
    assert (
        log_of(api, job) == "[3 bytes before this are not shown]\n" + "x" * ((1 << 20) - 3) + "end"
    )


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"\xff\x1b[31mred\x1b[0m\r\n", "\ufffd\x1b[31mred\x1b[0m\r\n"),
        (b"cut \xe2\x82", "cut \ufffd"),
        ("€".encode() * 100_000, "€" * 100_000),
    ],
    ids=["invalid", "incomplete", "across chunks"],
)
def test_bytes_that_are_no_text_are_replaced_and_colours_stay(
    api: Api, content: bytes, shown: str
) -> None:
    job, _ = job_with(api, {"log/f": content})
    assert log_of(api, job) == shown


def test_of_a_line_of_a_gigabyte_the_end_is_shown(api: Api) -> None:
    job, name = job_with(api, {"log/f": b"first\n"})
    with open(api.tree / "log" / name / "f", "ab") as file:
        file.truncate(1 << 30)
        file.write(b"the end\n")
    left_out = (1 << 30) + 8 - tail.MOST_BYTES
    shown = log_of(api, job)
    assert shown.startswith(f"[{left_out} bytes before this are not shown]\n")
    assert shown.endswith("\0the end\n")
    assert len(shown.partition("\n")[2]) == tail.MOST_BYTES


@on_both_storages
def test_what_is_cut_begins_with_a_whole_character(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "MOST_BYTES", 100_000)
    job, _ = job_with(api, {"log/f": b"short\n" + "€".encode() * 50_000})
    # 33 333 characters have 99 999 bytes
    left_out = 6 + 150_000 - 99_999
    assert log_of(api, job) == f"[{left_out} bytes before this are not shown]\n" + "€" * 33_333


def test_of_many_files_the_newest_are_shown(api: Api) -> None:
    job = api.new_job()
    for number in range(103):
        path = api.plant(f"log/{job['job_name']}/{number:03}", b"x\n")
        os.utime(path, (number, number))
    shown = log_of(api, job["id"])
    assert shown.startswith("[3 older files are not shown]\n\n==> 003 <==\nx\n\n==> 004 <==\n")
    assert shown.endswith("==> 102 <==\nx\n")
    assert shown.count("==>") == 100


def test_a_name_cannot_forge_a_line(api: Api) -> None:
    job, _ = job_with(api, {"log/a\nb\x1b": b"1\n", "log/c": b"2\n"})
    assert log_of(api, job) == "==> a\ufffdb\ufffd <==\n1\n\n==> c <==\n2\n"


# -- shares ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "kind"), [("files", "listing"), ("download", "zip"), ("log", "log_tail")]
)
def test_results_take_a_slot_of_their_users_share(
    start_gateway: StartGateway,
    issuer: Issuer,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    kind: Kind,
) -> None:
    one = Budget(slots=2, per_caller=1, waiting=0, longest_wait=1.0)
    monkeypatch.setattr("gateway.app.budgets", lambda limits: dict.fromkeys(budgets(limits), one))
    gateway = start_gateway()
    api, other = (Api(gateway, user, issuer.token(user)) for user in ("user", "other"))
    (job, _), (theirs, _) = (job_with(caller, {"log/l": b"1"}) for caller in (api, other))
    assert gateway.app is not None
    slot = gateway.app[SHARES].slot(kind, user_caller(api.user))
    in_gateway(gateway, slot.acquire())
    assert api.get(f"/jobs/{job}/{what}").status == 429
    assert other.get(f"/jobs/{theirs}/{what}").status == 200
    gateway.loop.call_soon_threadsafe(slot.release)
    assert api.get(f"/jobs/{job}/{what}").status == 200
