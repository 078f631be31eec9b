"""`POST /jobs`: what is accepted, what is refused, and what is handed over."""

import json
import operator
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from gateway.jobs.schemas import HARDWARE_KEYS
from tests.support.gateway import Api, Reply, fresh, job_body, on_both_databases, payload_of, rows

pytestmark = on_both_databases

TRAIN = {"application": "decode", "version": "v1", "entrypoint": "train"}
NO_HARDWARE = dict.fromkeys(HARDWARE_KEYS)


@pytest.fixture
def user(api: Api) -> Api:
    api.plant_inputs()
    return api


def select(**down: Any) -> dict[str, Any]:
    return {"attributes": {"files_down": down}}


def without(body: dict[str, Any]) -> dict[str, Any]:
    """The body without its `...`."""
    return {name: value for name, value in body.items() if value is not ...}


def run(entrypoint: str, **down: Any) -> dict[str, Any]:
    return {"application": {**TRAIN, "entrypoint": entrypoint}, **select(**down)}


def files_down(user: Api, **body: Any) -> dict[str, str]:
    """Path in the container → path in the user's tree."""
    reply = user.submit(**body)
    assert reply.status == 201, reply
    down = payload_of(user, reply.json()["id"])["job"]["handler"]["files_down"]
    return {inside: uri.removeprefix(f"{user.tree}/") for inside, uri in down.items()}


def faults(user: Api, **body: Any) -> set[tuple[str, str]]:
    """Where in the body, with dots, and which."""
    found = user.submit(**body).faults()
    return {(".".join(map(str, loc[1:])), kind) for loc, kind in found if loc[0] == "body"}


def assert_names(reply: Reply, *named: str) -> None:
    assert reply.status == 400, reply
    for name in named:
        assert name in reply.detail


# -- what is answered, kept and handed over ------------------------------------------------------


def test_the_answer_repeats_the_submission(user: Api) -> None:
    body = job_body(priority=3, environment="cloud")
    reply = user.post("/jobs", json=body)
    assert reply.status == 201
    job = reply.json()
    date = job.pop("date_created")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", date)
    assert abs(datetime.now(UTC) - datetime.fromisoformat(f"{date}Z")) < timedelta(minutes=1)
    name = body["job_name"]
    assert job == {
        **body,
        "id": job["id"],
        "user_id": user.user,
        "user_email": user.get("/user").json()["email"],
        "date_started": None,
        "date_finished": None,
        "status": "queued",
        "runtime_details": None,
        "paths_out": {kind: f"{kind}/{name}" for kind in ("output", "log", "artifact")},
    }
    assert user.get(f"/jobs/{job['id']}").json() == reply.json()
    assert user.get("/jobs").json() == [reply.json()]


def test_the_hand_over_is_written_with_the_job(user: Api) -> None:
    hardware = {**NO_HARDWARE, "cpu_cores": 2, "gpu_model": "g"}
    reply = user.submit(priority=4, environment="local", hardware=hardware)
    job = reply.json()
    root = str(user.tree)
    assert payload_of(user, job["id"]) == {
        "job": {
            "app": {"cmd": ["run", "--fast"], "env": {"KEY": "value"}},
            "handler": {
                "image_url": "registry.example/image",
                "image_name": "decode",
                "image_version": "v1",
                "entrypoint": "train",
                "files_down": {
                    "config/param.yaml": f"{root}/config/exp/param.yaml",
                    "data/frames.tif": f"{root}/data/exp/frames.tif",
                    "data/deep/more.tif": f"{root}/data/exp/deep/more.tif",
                    "artifact/model.pt": f"{root}/artifact/exp/model.pt",
                },
                "files_up": {"log": "log", "artifact": "model"},
            },
            "meta": {"date_created": job["date_created"]},
            "hardware": hardware,
        },
        "environment": "local",
        "group": None,
        "priority": 4,
        "paths_upload": {kind: f"{root}/{path}" for kind, path in job["paths_out"].items()},
    }
    state = rows(
        user.gateway, "SELECT state, number FROM handovers WHERE job_id = :id", id=job["id"]
    )
    assert state == [("pending", job["id"])]


@pytest.mark.parametrize("left_out", [..., None, "", "null"])
def test_optional_fields_may_be_left_out(user: Api, left_out: Any) -> None:
    reply = user.submit(
        environment=left_out,
        priority=left_out,
        hardware=left_out if left_out is ... else dict.fromkeys(NO_HARDWARE, left_out),
        attributes=without({
            "files_down": without({"config_id": "exp", "data_ids": left_out,
                                   "artifact_ids": left_out}),
            "env_vars": left_out,
        }),
    )  # fmt: skip
    assert reply.status == 201
    job = reply.json()
    assert (job["environment"], job["priority"], job["hardware"]) == (None, 0, NO_HARDWARE)
    assert job["attributes"] == {
        "files_down": {"config_id": "exp", "data_ids": None, "artifact_ids": None},
        "env_vars": None,
    }
    assert user.get(f"/jobs/{job['id']}").json() == job


def test_numbers_as_text_and_whole_floats_are_understood(user: Api) -> None:
    hardware = {"cpu_cores": "4", "memory": 100.0, "gpu_mem": "7.0"}
    job = user.submit(priority="2", hardware=hardware).json()
    assert job["priority"] == 2
    assert job["hardware"] == {**NO_HARDWARE, "cpu_cores": 4, "memory": 100, "gpu_mem": 7}


def test_unknown_keys_are_ignored_at_every_level(user: Api) -> None:
    body = job_body(extra=1, application={**TRAIN, "x": 1}, hardware={"x": 1})
    body["attributes"]["x"] = 1
    body["attributes"]["files_down"]["x"] = ["y"]
    reply = user.post("/jobs", json=body)
    assert reply.status == 201
    assert "extra" not in reply.json()
    assert "x" not in json.dumps(list(reply.json()["hardware"]))
    assert reply.json()["application"] == TRAIN


@pytest.mark.parametrize("text", ["ü😀", "<b>", "'; DROP TABLE jobs; --", "\u2028", "x" * 255])
def test_texts_of_any_kind_are_kept(user: Api, text: str) -> None:
    attributes = {"files_down": {}, "env_vars": {"KEY": text}}
    job = user.submit(hardware={"gpu_model": text}, attributes=attributes).json()
    again = user.get(f"/jobs/{job['id']}").json()
    assert again["hardware"]["gpu_model"] == text
    assert again["attributes"]["env_vars"] == {"KEY": text}


@pytest.mark.parametrize("text", ["a\0b", "a\nb", "\x1b[2J", "\x9b2J", "x" * 40_000], ids=ascii)
def test_no_text_holds_control_characters_or_is_long(user: Api, text: str) -> None:
    found = faults(
        user,
        job_name=text,
        application={"application": text, "version": text, "entrypoint": text},
        hardware={"gpu_model": text, "gpu_archi": text},
        attributes={
            "files_down": {"config_id": text, "data_ids": ["exp", text], "artifact_ids": [text]},
            "env_vars": {"KEY": text},
        },
    )
    places = ["job_name", "application.application", "application.version",
              "application.entrypoint", "hardware.gpu_model", "hardware.gpu_archi",
              "attributes.files_down.config_id", "attributes.files_down.data_ids.1",
              "attributes.files_down.artifact_ids.0", "attributes.env_vars.KEY"]  # fmt: skip
    assert found == {(place, "value_error") for place in places}


def test_the_names_of_variables_are_texts_as_well(user: Api) -> None:
    names = ["a\nb", "x" * 300]
    body = {"files_down": {}, "env_vars": dict.fromkeys(names, "")}
    shown = {f"attributes.env_vars.{name}" for name in ("a\nb", f"{'x' * 100}…")}
    assert faults(user, attributes=body) == {(place, "value_error") for place in shown}


def test_a_long_value_of_a_variable_is_kept(user: Api) -> None:
    body = {"files_down": {}, "env_vars": {"KEY": "x" * 32_768}}
    assert user.submit(attributes=body).json()["attributes"]["env_vars"] == body["env_vars"]


def test_a_fault_never_repeats_a_long_text(user: Api) -> None:
    names = {f"NAME_{number}": "x" for number in range(1_000)}
    body = {"files_down": {}, "env_vars": names}
    assert sum(len(fault["msg"]) for fault in user.submit(attributes=body).detail) < 1_000
    names["ONE_MORE"] = "x"
    assert faults(user, attributes=body) == {("attributes.env_vars", "value_error")}


# -- inputs --------------------------------------------------------------------------------------


EXP = {"frames.tif": "exp/frames.tif", "deep/more.tif": "exp/deep/more.tif"}


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["exp"], EXP),
        (["exp/"], EXP),
        (["exp", "exp/", "exp//", "exp/frames.tif"], EXP),
        (["exp/deep/more.tif", "top.csv"], {"more.tif": "exp/deep/more.tif", "top.csv": "top.csv"}),
        (["hollow"], {}),
    ],
    ids=str,
)
def test_directories_are_walked_and_files_keep_their_names(
    user: Api, ids: list[str], expected: dict[str, str]
) -> None:
    user.plant("data/top.csv")
    (user.tree / "data/hollow").mkdir()
    down = {f"data/{inside}": f"data/{path}" for inside, path in expected.items()}
    assert files_down(user, **select(data_ids=ids)) == down


@pytest.mark.parametrize(
    ("argument", "given"),
    [("config_id", "none"), ("config_id", "config/exp"), ("data_ids", ["exp", "none/"]),
     ("artifact_ids", ["ex"]), ("data_ids", ["exp/frames"])],
)  # fmt: skip
def test_an_input_that_does_not_exist_is_named(user: Api, argument: str, given: Any) -> None:
    reply = user.submit(**select(**{argument: given}))
    directory = {"config_id": "config", "data_ids": "data", "artifact_ids": "artifact"}[argument]
    id_ = given if isinstance(given, str) else given[-1]
    assert reply.status == 400
    assert reply.detail == (
        f"The input '{directory}/{id_}' does not exist: {argument} is relative to '{directory}/'"
    )
    assert user.get("/jobs").json() == []


@pytest.mark.parametrize("path", ["laser_50%.csv", "100%/x", "a%2", "%zz"])
def test_a_percent_sign_that_escapes_nothing_is_part_of_a_name(user: Api, path: str) -> None:
    user.plant(f"data/odd/{path}")
    assert user.submit(**select(data_ids=["odd"])).status == 201


@pytest.mark.parametrize("path", ["a#b", "a?b", "a%20b", "d#d/x", "deep/a%4Fb/x"])
def test_names_that_workers_cannot_fetch_are_refused(user: Api, path: str) -> None:
    user.plant(f"data/odd/{path}")
    assert_names(user.submit(**select(data_ids=["odd"])), path)


@pytest.mark.parametrize(
    "ids",
    [["A", "B"], ["B", "A"], ["A", "f"], ["A/f", "f"], ["A", "C"], ["C", "A"], ["f", "C"]],
    ids="-".join,
)
def test_selections_that_clash_are_both_named(user: Api, ids: list[str]) -> None:
    for path in ("A/f", "B/f", "f", "C/f/inner"):
        user.plant(f"data/{path}")
    assert_names(user.submit(**select(data_ids=ids)), *(f"'{name}'" for name in ids))


def test_selections_of_two_arguments_can_clash(user: Api) -> None:
    user.plant("config/c/f")
    user.plant("data/d/f")
    reply = user.submit(**run("flat", config_id="c", data_ids=["d"]))
    assert_names(reply, "config_id 'c'", "data_ids 'd'")


@pytest.mark.parametrize(
    ("argument", "given", "place"),
    [
        ("config_id", "..", ()), ("config_id", "/", ()), ("config_id", "//", ()),
        ("config_id", "../data/exp", ()), ("config_id", "a\nb", ()), ("config_id", "./exp", ()),
        ("data_ids", [""], (0,)), ("data_ids", ["exp", "exp/.."], (1,)),
        ("data_ids", ["a\0"], (0,)),
        ("data_ids", ["exp", "%2e%2e", "/"], (1, 2)), ("artifact_ids", ["x" * 300], (0,)),
        ("data_ids", ["\x7f"], (0,)),
    ],
    ids=ascii,
)  # fmt: skip
def test_ids_that_can_name_nothing(user: Api, argument: str, given: Any, place: Any) -> None:
    places = [f"attributes.files_down.{argument}.{index}" for index in place]
    expected = places or [f"attributes.files_down.{argument}"]
    assert faults(user, **select(**{argument: given})) == {(p, "value_error") for p in expected}


def test_ids_for_an_argument_that_the_entrypoint_does_not_take(user: Api) -> None:
    reply = user.submit(**run("fit", data_ids=["exp"], config_id="exp", artifact_ids=["exp"]))
    assert reply.faults() == {(("body", "attributes"), "value_error")}
    assert [fault["msg"].split(" takes no ")[1] for fault in reply.detail] == [
        "config_id, allowed: data_ids",
        "artifact_ids, allowed: data_ids",
    ]


@pytest.mark.parametrize("nothing", [None, "", []])
def test_such_an_argument_may_be_empty(user: Api, nothing: Any) -> None:
    body = run("fit", data_ids=["exp"], config_id=nothing or None, artifact_ids=nothing)
    job = user.submit(**body).json()
    assert payload_of(user, job["id"])["job"]["handler"]["aws_job_def"] == "definition"


# -- fields --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "value", "kind"),
    [
        ("job_name", ..., "missing"), ("job_name", None, "string_type"),
        ("environment", "any", "enum"), ("environment", 1, "enum"),
        ("priority", 6, "value_error"), ("priority", -1, "value_error"),
        ("priority", 10**40, "value_error"), ("priority", 2.5, "int_from_float"),
        ("priority", "high", "int_parsing"), ("priority", True, "int_type"),
        ("hardware", [], "model_type"), ("hardware.memory", "much", "int_parsing"),
        ("hardware.gpu_model", 1, "string_type"), ("hardware.gpu_mem", 10**20, "value_error"),
        ("application", ..., "missing"), ("application", None, "model_type"),
        ("application", "x", "model_type"), ("application.version", 1, "string_type"),
        ("attributes", ..., "missing"), ("attributes.files_down", ..., "missing"),
        ("attributes.files_down", None, "model_type"),
        ("attributes.files_down.data_ids", "x", "list_type"),
        ("attributes.files_down.config_id", ["exp"], "string_type"),
        ("attributes.env_vars.KEY", 1, "string_type"),
        ("attributes.env_vars", ["KEY"], "dict_type"),
    ],
    ids=ascii,
)  # fmt: skip
def test_each_wrong_field_is_named(user: Api, place: str, value: Any, kind: str) -> None:
    body = job_body()
    *outer, last = place.split(".")
    part = reduce(operator.getitem, outer, body)
    part[last] = value
    if value is ...:
        del part[last]
    assert user.post("/jobs", json=body).faults() == {(("body", *outer, last), kind)}


def test_all_faults_are_reported_at_once(user: Api) -> None:
    found = faults(
        user,
        job_name="a/b",
        environment="moon",
        priority=9,
        hardware={"memory": "much"},
        attributes={
            "files_down": {"config_id": "..", "data_ids": [1, "exp", "../x", None]},
            "env_vars": {"OTHER": "x", "KEY": 3},
        },
    )
    assert found == {
        ("job_name", "value_error"),
        ("environment", "enum"),
        ("priority", "value_error"),
        ("hardware.memory", "int_parsing"),
        ("attributes.files_down.config_id", "value_error"),
        ("attributes.files_down.data_ids.0", "string_type"),
        ("attributes.files_down.data_ids.2", "value_error"),
        ("attributes.files_down.data_ids.3", "string_type"),
        ("attributes.env_vars.KEY", "string_type"),
        ("attributes", "value_error"),
    }


@pytest.mark.parametrize("part", ["application", "version", "entrypoint"])
def test_an_unknown_application_is_named_with_those_there_are(user: Api, part: str) -> None:
    reply = user.submit(priority=9, application={**TRAIN, part: "none-such"})
    assert reply.faults() == {
        (("body", "application", part), "value_error"),
        (("body", "priority"), "value_error"),
    }
    given, _, allowed = reply.detail[-1]["msg"].partition("allowed: ")
    assert "none-such" in given
    choices = {"application": ["decode"], "version": ["v1"], "entrypoint": ["fit", "flat", "train"]}
    assert sorted(allowed.split(", ")) == choices[part]


def test_environment_variables_must_be_declared(user: Api) -> None:
    env = {"KEY": "1", "BAD": "2", "WORSE": "3"}
    reply = user.submit(attributes={"files_down": {}, "env_vars": env})
    assert reply.faults() == {(("body", "attributes"), "value_error")}
    assert "BAD, WORSE" in reply.detail[0]["msg"]
    assert "allowed: KEY, OTHER_KEY" in reply.detail[0]["msg"]


# -- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\0b"], ids=ascii)
def test_a_name_that_cannot_be_a_directorys_is_refused(user: Api, name: str) -> None:
    assert faults(user, job_name=name) == {("job_name", "value_error")}


@pytest.mark.parametrize("name", [" ", "   ", "\N{NO-BREAK SPACE}"], ids=ascii)
def test_a_name_of_blanks_alone_is_refused_in_words_of_its_own(user: Api, name: str) -> None:
    reply = user.submit(job_name=name)
    assert reply.faults() == {(("body", "job_name"), "value_error")}
    assert reply.detail[0]["msg"].endswith("a name must not consist of blanks alone")
    assert user.submit(job_name=f"{name}x").status == 201


@pytest.mark.parametrize(
    "name", ["<img src=x onerror=alert(1)>", "ü 漢", "null", "a\\b", "x" * 255]
)
def test_any_other_name_is_accepted(user: Api, name: str) -> None:
    job = user.new_job(job_name=name)
    assert job["paths_out"]["output"] == f"output/{name}"


def test_a_name_is_unique_per_user(user: Api, other: Api) -> None:
    name = user.new_job()["job_name"]
    first = user.submit(job_name=name)
    # takes precedence over faults of inputs and over results in the way
    user.plant(f"output/{name}/result")
    for reply in (first, user.submit(job_name=name, **select(data_ids=["gone"]))):
        assert (reply.status, reply.json()) == (409, {"detail": "Job name must be unique"})
    assert other.new_job(job_name=name)["job_name"] == name


def test_only_one_of_many_at_once_gets_the_name(user: Api) -> None:
    name = fresh("race")
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda _: user.submit(job_name=name), range(8)))
    assert sorted(reply.status for reply in replies) == [201] + [409] * 7
    assert len(user.get("/jobs").json()) == 1


def test_a_name_is_free_again_after_deletion(user: Api) -> None:
    job = user.new_job()
    user.plant(f"output/{job['job_name']}/result")
    assert user.delete(f"/jobs/{job['id']}").status == 204
    again = user.new_job(job_name=job["job_name"])
    assert again["id"] > job["id"]


@pytest.mark.parametrize("kind", ["output", "log", "artifact"])
@pytest.mark.parametrize("inside", ["", "/f", "/deep/er/f"])
def test_a_name_under_which_files_lie_is_taken(user: Api, kind: str, inside: str) -> None:
    name = fresh("job")
    user.plant(f"{kind}/{name}{inside}")
    reply = user.submit(job_name=name)
    assert reply.status == 409
    assert f"{kind}/{name}" in reply.detail
    assert user.get("/jobs").json() == []


def test_empty_directories_take_no_name(user: Api) -> None:
    name = fresh("job")
    (user.tree / f"output/{name}/deep").mkdir(parents=True)
    assert user.submit(job_name=name).status == 201


# -- the application configuration ---------------------------------------------------------------


@pytest.fixture
def configuration(user: Api) -> Any:
    """Rewrites the application configuration until the test is over."""
    path = Path(user.gateway.environment["APPLICATION_CONFIG_FILE"])
    before = path.read_text()
    write: Callable[[str], int] = path.write_text
    yield write
    path.write_text(before)
    assert user.get("/jobs/applications").status == 200


def test_a_changed_configuration_counts_from_the_next_request(
    user: Api, configuration: Callable[[str], int]
) -> None:
    job = user.new_job()
    configuration("{}")
    assert user.get("/jobs/applications").json() == {}
    reply = user.submit()
    assert reply.faults() == {(("body", "application", "application"), "value_error")}
    assert "allowed: none" in reply.detail[0]["msg"]
    assert user.get(f"/jobs/{job['id']}").json() == job
    assert user.get("/jobs").json() == [job]
    assert user.report(job["id"], "running").status == 200
