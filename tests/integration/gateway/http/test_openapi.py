"""`/openapi.json` is valid, complete, and says what the gateway does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from deploy.sandbox.cognito import USER
from devtools.user_pool import Issuer
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import APPLICATIONS, Api

OPERATIONS = {
    ("get", "/"), ("get", "/access_info"), ("get", "/user"), ("get", "/jobs"), ("post", "/jobs"),
    ("get", "/jobs/applications"), ("get", "/jobs/{job_id}"), ("delete", "/jobs/{job_id}"),
    ("patch", "/jobs/{job_id}"),
    ("get", "/files/{file_path}/download"), ("head", "/files/{file_path}/download"),
    ("get", "/files/{file_path}/url"), ("post", "/files/{f_type}/{base_path}/upload"),
    ("post", "/files/{f_type}/{base_path}/url"), ("post", "/files/{f_type}/{base_path}/"),
    ("get", "/files/{file_path}"), ("put", "/files/{file_path}"), ("delete", "/files/{file_path}"),
    ("get", "/jobs/events"), ("get", "/jobs/{job_id}/events"),
    ("post", "/jobs/cancel"), ("post", "/jobs/{job_id}/cancel"),
    ("post", "/jobs/batch"), ("post", "/jobs/{job_id}/repeat"),
    ("put", "/_job_status"),
    ("get", "/files"),
    ("get", "/user/usage"),
    ("get", "/jobs/{job_id}/files"), ("get", "/jobs/{job_id}/log"),
    ("get", "/jobs/{job_id}/download"), ("head", "/jobs/{job_id}/download"),
    ("get", "/webhooks"),
    ("post", "/webhooks"),
    ("get", "/webhooks/{webhook_id}"),
    ("patch", "/webhooks/{webhook_id}"),
    ("delete", "/webhooks/{webhook_id}"),
    ("post", "/webhooks/{webhook_id}/test"),
    ("post", "/webhooks/{webhook_id}/rotate"),
    ("get", "/webhooks/{webhook_id}/deliveries"),
    ("post", "/webhooks/{webhook_id}/deliveries/{message}/redeliver"),
    ("get", "/user/notifications"), ("put", "/user/notifications"),
    ("get", "/notifications/unsubscribe"), ("post", "/notifications/unsubscribe"),
    ("options", "/uploads"), ("post", "/uploads"), ("head", "/uploads/{upload_id}"),
    ("patch", "/uploads/{upload_id}"), ("delete", "/uploads/{upload_id}"),
}  # fmt: skip
ACCOUNTS = {("post", "/user"), ("post", "/token"), ("post", "/login")}
PUBLIC = {
    ("get", "/"), ("get", "/access_info"), *ACCOUNTS,
    ("get", "/notifications/unsubscribe"), ("post", "/notifications/unsubscribe"),
}  # fmt: skip

CONDITIONS = {"Range", "If-Range", "If-None-Match", "If-Match"}

Operations = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture
def document(start_gateway: StartGateway) -> Any:
    return Api(start_gateway(PROD="false")).get("/openapi.json").json()


@pytest.fixture
def operations(document: Any) -> Operations:
    return {
        (method, path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def test_the_document_is_valid(document: Any) -> None:
    assert document["openapi"].startswith("3.")
    validate(document)


def test_every_operation_is_there(operations: Operations) -> None:
    assert set(operations) == OPERATIONS | ACCOUNTS


def test_the_account_operations_are_documented_only_where_they_exist(anybody: Api) -> None:
    paths = anybody.get("/openapi.json").json()["paths"]
    assert "/token" not in paths
    assert "post" not in paths["/user"]


def test_every_operation_and_parameter_is_described(operations: Operations) -> None:
    for name, operation in operations.items():
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["tags"], name
        for parameter in operation["parameters"]:
            described = parameter.get("description") or parameter["schema"].get("description")
            assert described, (name, parameter["name"])
        declared = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
        assert declared == {part[1:-1] for part in name[1].split("/") if part[:1] == "{"}, name


@pytest.mark.parametrize(
    ("method", "path", "place", "names"),
    [
        ("get", "/jobs", "query", {"offset", "limit"}),
        ("get", "/files/{file_path}", "query", {"show_dirs", "recursive"}),
        ("put", "/files/{file_path}", "header", {"If-None-Match"}),
        ("get", "/files/{file_path}/download", "header", CONDITIONS),
        ("head", "/files/{file_path}/download", "header", CONDITIONS),
    ],
)
def test_queries_and_headers_are_declared(
    operations: Operations, method: str, path: str, place: str, names: set[str]
) -> None:
    assert names <= {p["name"] for p in operations[method, path]["parameters"] if p["in"] == place}


def contents_of(operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Those of the request and of every response."""
    for part in [*operation["responses"].values(), operation.get("requestBody", {})]:
        yield from part.get("content", {}).values()


def fits(document: Any, content: Any, value: Any) -> bool:
    schema = {**content["schema"], "components": document["components"]}
    return OAS31Validator(schema).is_valid(value)


def test_every_operation_has_examples_and_they_fit(operations: Operations, document: Any) -> None:
    for name, operation in operations.items():
        contents = list(contents_of(operation))
        for content in contents:
            assert content["schema"], name
            if "example" in content:
                assert fits(document, content, content["example"]), name
        examples = [part for part in (*contents, *operation["parameters"]) if "example" in part]
        assert examples, name


def test_every_error_has_its_sentence_as_example(operations: Operations) -> None:
    def said(method: str, path: str, status: str) -> str:
        content = operations[method, path]["responses"][status]["content"]["application/json"]
        return str(content["example"]["detail"])

    assert said("get", "/user", "401") == "Not authenticated"
    assert said("get", "/user", "403") == "Not a member of the 'users' group"
    assert said("post", "/token", "400") == "Incorrect email or password"
    assert said("post", "/jobs", "409") == "Job name must be unique"
    assert said("get", "/jobs/{job_id}", "404") == "Job not found"
    assert said("put", "/_job_status", "401") == "unauthorized"
    for (method, path), operation in operations.items():
        for status in operation["responses"].keys() - {"422"}:
            if status >= "4":
                assert ("Not Found" in said(method, path, status)) <= (status == "404")


def test_the_example_credentials_are_those_of_the_sandbox(operations: Operations) -> None:
    contents = operations["post", "/token"]["requestBody"]["content"]
    for content in contents.values():
        assert content["example"] == {"username": USER.email, "password": USER.password}


@pytest.mark.parametrize("path", ["/user", "/token", "/login"])
def test_credentials_may_name_the_address_in_two_ways_as_json(
    operations: Operations, document: Any, path: str
) -> None:
    contents = operations["post", path]["requestBody"]["content"]
    body, form = contents["application/json"], contents["application/x-www-form-urlencoded"]
    by_name, by_address = {"username": "u", "password": "p"}, {"email": "u", "password": "p"}
    assert fits(document, body, by_name)
    assert fits(document, body, by_address)
    assert fits(document, form, by_name)
    assert not fits(document, body, {"password": "p"})
    assert not fits(document, body, {"email": "u"})


def test_answers_and_bodies_have_contents(operations: Operations) -> None:
    for name, operation in operations.items():
        assert [code for code in operation["responses"] if code.startswith("2")], name
        for code, answer in operation["responses"].items():
            assert answer["description"], (name, code)
            is_empty = code in {"204", "304"} or "headers" in answer
            assert is_empty or answer["content"], (name, code)
        without = ("/url", "/", "/test", "/rotate", "/redeliver")
        has_body = name[0] in {"post", "put", "patch"} and not name[1].endswith(without)
        assert ("requestBody" in operation) == has_body, name


def test_every_operation_names_its_security(operations: Operations, document: Any) -> None:
    schemes = document["components"]["securitySchemes"]
    assert schemes["user"]["type"] == "http"
    assert schemes["user"]["scheme"] == "bearer"
    assert schemes["internal"] == {"type": "apiKey", "in": "header", "name": "x-api-key"}
    for name, operation in operations.items():
        if name in PUBLIC:
            assert operation["security"] == []
        elif name == ("put", "/_job_status"):
            assert operation["security"] == [{"internal": []}]
        else:
            assert operation["security"] == [{"user": []}, {"login": []}]
            assert {"401", "403"} <= set(operation["responses"])


def test_where_there_are_accounts_the_documentation_logs_in_with_a_password(
    document: Any, anybody: Api
) -> None:
    login = document["components"]["securitySchemes"]["login"]
    assert login["flows"] == {"password": {"tokenUrl": "/token", "scopes": {}}}
    assert login["x-tokenName"] in document["components"]["schemas"]["Token"]["properties"]
    without = anybody.get("/openapi.json").json()
    assert without["components"]["securitySchemes"].keys() == {"user", "internal"}
    assert without["paths"]["/user"]["get"]["security"] == [{"user": []}]


def test_the_example_job_can_be_started(start_gateway: StartGateway, issuer: Issuer) -> None:
    user = Api(start_gateway(), "user", issuer.token("user"))
    body = user.get("/openapi.json").json()["paths"]["/jobs"]["post"]["requestBody"]
    example = body["content"]["application/json"]["example"]
    assert user.post("/jobs", json=example).status == 400  # there are no inputs yet
    user.plant("config/exp1/param.yaml")
    user.plant("data/exp1/frames.tif")
    assert user.post("/jobs", json=example).status == 201


def test_the_example_follows_the_configuration(
    start_gateway: StartGateway, issuer: Issuer, tmp_path: Path
) -> None:
    path = tmp_path / "own.yaml"

    def example(applications: Any) -> Any:
        path.write_text(yaml.safe_dump(applications))
        job = anybody.get("/openapi.json").json()["paths"]["/jobs"]["post"]["requestBody"]
        return job["content"]["application/json"]["example"]

    path.write_text("{}")
    anybody = Api(start_gateway(APPLICATION_CONFIG_FILE=str(path)))
    fit = {"decode": {"v1": {"fit": APPLICATIONS["decode"]["v1"]["fit"]}}}
    assert example(fit)["attributes"]["files_down"] == {
        "config_id": None,
        "data_ids": ["exp1"],
        "artifact_ids": [],
    }
    other = {"comet": {"latest": {"run": APPLICATIONS["decode"]["v1"]["train"]}}}
    assert example(other)["application"]["application"] == "comet"
