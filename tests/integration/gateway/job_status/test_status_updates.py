"""`PUT /_job_status`: what workers report, and its effects."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from common.database.engine import Database
from common.database.errors import DatabaseUnavailable
from common.database.notify import ChannelNotifier
from common.database.tables import jobs
from common.jobs.lifecycle import Report, Source, Status
from common.telemetry import outages
from common.telemetry.outages import OutageLog
from deploy.sandbox.ports import free_port
from devtools.database import database_settings
from devtools.postgres import run_apart
from devtools.user_pool import INTERNAL_KEY, Issuer
from devtools.waiting import eventually
from gateway.job_status import service
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import FRONTEND, Api, Gateway, on_both_databases, rows
from tests.support.records import change

FLOW = ["pulled", "preprocessing", "running", "postprocessing", "finished"]
STATUSES = ["queued", *FLOW, "error"]


@pytest.fixture
def job(api: Api) -> int:
    return api.new_job()["id"]


def state(api: Api, job_id: int) -> tuple[str, bool, bool]:
    """Status, whether the job has started, and whether it has ended."""
    found = api.get(f"/jobs/{job_id}").json()
    return found["status"], found["date_started"] is not None, found["date_finished"] is not None


def details(api: Api, job_id: int) -> Any:
    return api.get(f"/jobs/{job_id}").json()["runtime_details"]


@on_both_databases
class TestLifeCycle:
    def test_a_whole_life_is_recorded(self, api: Api, job: int) -> None:
        for status in FLOW:
            for _ in range(3):  # repeated as keep-alives, which add nothing
                reply = api.report(job, status)
                assert (reply.status, reply.json()) == (200, status)
                assert state(api, job) == (status, True, status == "finished")
        events = "SELECT status FROM job_events WHERE job_id = :id ORDER BY id"
        assert [row[0] for row in rows(api.gateway, events, id=job)] == ["queued", *FLOW]

    @pytest.mark.parametrize("status", STATUSES)
    def test_any_status_may_be_the_first(self, api: Api, job: int, status: str) -> None:
        for _ in range(2):
            assert api.report(job, status).json() == status
        assert state(api, job)[0] == status

    def test_dates_are_set_once(self, api: Api, job: int) -> None:
        def dates() -> tuple[Any, Any]:
            found = api.get(f"/jobs/{job}").json()
            return found["date_started"], found["date_finished"]

        api.report(job, "pulled")
        started, _ = dates()
        for status in ("running", "queued", "pulled"):
            api.report(job, status)
        assert dates() == (started, None)
        api.report(job, "finished")
        ended = dates()
        for status in ("finished", "error", "running"):
            api.report(job, status)
        assert dates() == ended
        assert ended[0] == started
        assert ended[1] >= started

    def test_finished_is_final(self, api: Api, job: int) -> None:
        api.report(job, "finished", "the end")
        before = api.get(f"/jobs/{job}").json()
        for status in STATUSES:
            reply = api.report(job, status, "more")
            assert (reply.status, reply.json()) == (200, status)
        assert api.get(f"/jobs/{job}").json() == before

    def test_a_failing_job_stays_failed_while_it_uploads_its_logs(self, api: Api, job: int) -> None:
        api.report(job, "running")
        api.report(job, "error")
        for status in ("postprocessing", "running", "pulled"):
            assert api.report(job, status, f"said {status}").json() == status
            assert state(api, job)[0] == "error"
        api.report(job, "error", "the log's tail")
        assert details(api, job).split("\n") == [
            "said postprocessing", "said running", "said pulled", "the log's tail",
        ]  # fmt: skip


@on_both_databases
class TestDetails:
    def test_they_accumulate_one_line_per_update(self, api: Api, job: int) -> None:
        for text in ("first", "", None, ..., "null", "second\nthird", "second\nthird"):
            assert api.report(job, "running", text).status == 200
        assert details(api, job) == "first\nsecond\nthird\nsecond\nthird"

    @pytest.mark.parametrize(
        ("sent", "kept"),
        [
            ("a\0b", "ab"),
            ("\0", None),
            ("ü😀<b>\n" * 50_000, "ü😀<b>\n" * 50_000),
            (b"Traceback \xe9t\xe9".decode("utf-8", "surrogateescape"), "Traceback ?t?"),
        ],
        ids=["NUL", "only NUL", "large", "not Unicode"],
    )
    def test_all_that_the_database_can_hold_is_kept(
        self, api: Api, job: int, sent: str, kept: str | None
    ) -> None:
        assert api.report(job, "error", sent).status == 200
        assert details(api, job) == kept

    def test_an_adopted_job_with_an_unknown_status_takes_updates(self, api: Api, job: int) -> None:
        async def make_old() -> None:
            database = Database(api.gateway.settings.database)
            await change(database, jobs, job, status="aborted")
            await database.close()

        run_apart(make_old())
        assert api.report(job, "queued").json() == "queued"
        assert api.report(job, "running", "on the way").json() == "running"
        assert state(api, job) == ("running", True, False)


class TestRefusals:
    @pytest.mark.parametrize("job_id", [0, -1, 999_999_999, 2**31, 2**63, 10**30, "9" * 5000])
    def test_an_unknown_job_is_not_found(self, api: Api, job_id: Any) -> None:
        reply = api.report(job_id, "running")
        assert (reply.status, reply.json()) == (404, {"detail": "Not Found"})

    @pytest.mark.parametrize("key", ["", " ", "wrong", INTERNAL_KEY + "x", INTERNAL_KEY.upper()])
    def test_a_wrong_key_is_unauthorized(self, api: Api, anybody: Api, key: str) -> None:
        for body in ({"job_id": 1, "status": "running"}, {}, []):
            reply = anybody.put("/_job_status", json=body, headers={"x-api-key": key})
            assert (reply.status, reply.json()) == (401, {"detail": "unauthorized"})

    def test_a_key_of_any_bytes_is_unauthorized(self, gateway: Gateway) -> None:
        head = b"PUT /_job_status HTTP/1.1\r\nHost: x\r\nx-api-key: \xff\xfe\r\n"
        assert gateway.raw(head + b"Content-Length: 2\r\n\r\n{}").status == 401

    def test_a_missing_key_is_a_fault(self, api: Api, job: int) -> None:
        reply = api.put("/_job_status", json={"job_id": job, "status": "finished"})
        assert reply.faults() == {(("header", "x-api-key"), "missing")}
        assert state(api, job)[0] == "queued"

    @pytest.mark.parametrize(
        ("job_id", "status", "details", "kinds"),
        [
            ("x", "", ..., {"job_id": "int_parsing", "status": "enum"}),
            (None, "running", ..., {"job_id": "int_type"}),
            (1.5, None, ..., {"job_id": "int_from_float", "status": "enum"}),
            (1, "RUNNING", 3, {"status": "enum", "runtime_details": "string_type"}),
        ],
    )
    def test_each_wrong_field_is_named(
        self, api: Api, job_id: Any, status: Any, details: Any, kinds: dict[str, str]
    ) -> None:
        faults = api.report(job_id, status, details).faults()
        assert faults == {(("body", name), kind) for name, kind in kinds.items()}

    @pytest.mark.parametrize("form", [str, float, lambda number: f" +{number}.0 "])
    def test_the_id_may_be_a_number_in_any_form(self, api: Api, job: int, form: Any) -> None:
        assert api.report(form(job), "running").status == 200

    def test_the_headers_case_and_a_slash_at_the_end_make_no_difference(
        self, api: Api, job: int
    ) -> None:
        body = {"job_id": job, "status": "running"}
        headers = {"X-API-KEY": f" {INTERNAL_KEY} "}
        reply = Api(api.gateway).put("/_job_status/", json=body, headers=headers)
        assert (reply.status, reply.json()) == (200, "running")
        assert state(api, job)[0] == "running"


async def test_a_standby_that_lags_behind_denies_no_job(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_DATABASE_WAIT", 0.5)
    database = Database(database_settings(postgresql_url))
    async with database.transaction() as tx:
        name = database.settings.url.database
        await tx.exec_driver_sql(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    await database.engine.dispose()
    reports = service.JobStatusService(database, ChannelNotifier(database), touch_every=30.0)
    report = Report(Status.RUNNING, None, Source.WORKER)
    with pytest.raises(DatabaseUnavailable):
        await reports.report(4711, report)
    pool: Any = database.engine.pool
    await eventually(lambda: not pool.checkedout())  # by the look-up that was cancelled
    await database.close()


def test_with_a_port_of_its_own_the_endpoint_is_there_alone(
    start_gateway: StartGateway, issuer: Issuer
) -> None:
    port = free_port()
    gateway = start_gateway(INTERNAL_PORT=str(port))
    user = Api(gateway, "somebody", issuer.token("somebody"))
    job = user.new_job()["id"]
    assert user.report(job, "running").status == 404
    inside = Api(SimpleNamespace(port=port), "somebody", user.token)
    assert inside.report(job, "running").json() == "running"
    assert state(user, job)[0] == "running"
    refused = inside.get("/jobs", headers={"X-Request-ID": "mine", "Origin": FRONTEND})
    assert (refused.status, refused.headers["x-request-id"]) == (404, "mine")
    assert "access-control-allow-origin" not in refused.headers
    assert inside.get("/_job_status").status == 405


def guarded(connect: Any, outage: threading.Event) -> Any:
    def connect_if_there(database: Database) -> Any:
        if outage.is_set():
            raise DatabaseUnavailable("away")
        return connect(database)

    return connect_if_there


class TestOutage:
    @pytest.fixture
    def outage(self, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
        """The database is away while this is set."""
        outage = threading.Event()
        for name in ("reading", "transaction"):
            monkeypatch.setattr(Database, name, guarded(getattr(Database, name), outage))
        return outage

    def test_without_the_database_the_worker_has_to_retry(
        self, api: Api, job: int, outage: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "_DATABASE_WAIT", 0.5)
        outage.set()
        began = time.monotonic()
        reply = api.report(job, "finished", "the end")
        assert reply.status == 503
        assert time.monotonic() - began > 0.49  # clocks of milliseconds
        assert reply.detail
        assert reply.headers["retry-after"]
        assert api.get("/jobs").status == 503
        outage.clear()
        monkeypatch.setattr(service, "_DATABASE_WAIT", 60.0)
        assert api.report(job, "finished", "the end").status == 200
        assert state(api, job)[0] == "finished"

    def test_many_refused_requests_are_one_line(
        self, api: Api, outage: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outages, "_database", OutageLog(period=3_600.0))
        outage.set()
        with structlog.testing.capture_logs() as lines:
            assert {api.get("/jobs").status for _ in range(30)} == {503}
        outage.clear()
        refused = [line["reason"] for line in lines if line["event"] == "request.refused"]
        assert refused == ["DatabaseUnavailable('away')"]

    def test_an_update_waits_for_a_database_that_comes_back(
        self, api: Api, job: int, outage: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "_DATABASE_WAIT", 60.0)
        outage.set()
        timer = threading.Timer(0.3, outage.clear)
        timer.start()
        assert api.report(job, "running").status == 200
        timer.join()
