"""The application configuration: what is accepted, what is refused, when it is read again."""

import os
from pathlib import Path

import orjson
import pytest
import yaml

from common.config.applications import Applications
from common.config.catalogue import Entrypoint, InvalidApplications, parse
from common.config.settings import DEFAULT_APPLICATIONS

HANDLER = {"image_url": "image", "files_down": {"data_ids": "data"}, "files_up": {"log": "log"}}
ENTRYPOINT = {"app": {"cmd": ["run"], "env": ["LEVEL"]}, "handler": HANDLER}


def tree(**changes: object) -> dict[str, object]:
    return {"app": {"v1": {"run": {**ENTRYPOINT, **changes}}}}


def entrypoint(**changes: object) -> Entrypoint:
    found = parse(dump(tree(**changes))).find("app", "v1", "run")
    assert found is not None
    return found


def dump(content: object) -> bytes:
    return yaml.safe_dump(content).encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "apps.yaml"


@pytest.fixture
async def applications(path: Path) -> Applications:
    """The configuration of a file with one application, `app`."""
    write(path, tree())
    applications = Applications(str(path))
    await applications.load()
    return applications


async def names(applications: Applications) -> list[str]:
    return list((await applications.current()).entrypoints)


def write(path: Path, content: object) -> None:
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_bytes(content if isinstance(content, bytes) else dump(content))
    os.utime(path, ns=(before + 2_000_000_000, before + 2_000_000_000))


def test_the_repositorys_own_file_describes_what_users_run() -> None:
    found = parse(Path(DEFAULT_APPLICATIONS).read_bytes()).entrypoints
    train, fit = found["decode"]["v0_10_1"]["train"], found["decode"]["v0_10_1"]["fit"]
    comet = found["comet"]["latest"]["run"]
    assert train.timeout == 12 * 3600
    assert fit.timeout == 5 * 3600
    assert train.files_up == {"log": "log", "artifact": "model"}
    assert fit.files_up == {"artifact": "output"}
    assert comet.files_up == {"log": "log", "output": "output"}
    assert comet.image_url.endswith("/decode-cloud/comet:latest")


@pytest.mark.parametrize(
    ("configured", "names"),
    [
        ({}, ("app", "v1", None)),
        ({"image_name": "n", "image_version": "w", "aws_job_def": "d"}, ("n", "w", "d")),
    ],
)
def test_names_default_to_application_and_version(
    configured: dict[str, str], names: tuple[str, str, str | None]
) -> None:
    found = entrypoint(handler={**HANDLER, **configured})
    assert (found.image_name, found.image_version, found.aws_job_def) == names


def test_resources_are_accepted_beside_and_under_the_handler() -> None:
    resources = {"aws_resources": {"hardware": {"GPU": 1}, "timeout": 18000}}
    assert entrypoint(**resources).timeout == 18000.0
    assert entrypoint(handler={**HANDLER, **resources}).timeout == 18000.0


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (b"[]", "the whole file"),
        (b"a: 1", "a must"),
        (b"a: {1.0: {}}", "a.1.0"),
        (dump(tree(app={"cmd": "run"})), "app.v1.run.app.cmd"),
        (dump(tree(app={"cmd": [1]})), "app.v1.run.app.cmd.0"),
        (dump(tree(app={"cmd": ["x"], "env": "LEVEL"})), "app.v1.run.app.env"),
        (dump(tree(handler={})), "app.v1.run.handler.image_url"),
        (dump(tree(handler={**HANDLER, "files_down": {"nonsense": "x"}})), "files_down.nonsense"),
        (dump(tree(handler={**HANDLER, "files_up": {"output": 3}})), "files_up.output"),
        (dump(tree(aws_resources={"timeout": "long"})), "aws_resources.timeout"),
        (dump(tree(aws_resources={"timeout": -1})), "aws_resources.timeout"),
        (dump(tree(aws_resources={"timeout": 10**400})), "aws_resources.timeout"),
        (dump(tree(aws_resources={"timeout": float("inf")})), "aws_resources.timeout"),
        (b"a: [", "line"),
        (dump(tree(aws_resource={})), "app.v1.run.aws_resource: the key must be one of app, "),
        (dump(tree(app={"cmd": ["x"], "envs": []})), "app.v1.run.app.envs: the key must be"),
        (dump(tree(handler={**HANDLER, "image": "x"})), "app.v1.run.handler.image: the key must"),
        (dump(tree(aws_resources={"time_out": 1})), "aws_resources.time_out: the key must be"),
        (b"a: {v1: {}}\nb: {}\na: {}", "a at line 3: the key is already at line 1"),
        (b"a:\n  v1: {}\n  v2: {}\n  v1: {}", "a.v1 at line 4: the key is already at line 2"),
        (b"a: {v1: {run: {app: {cmd: [{x: 1, x: 2}]}}}}", "a.v1.run.app.cmd.0.x at line 1"),
    ],
)
def test_an_invalid_file_is_refused_with_the_key_that_is_wrong(content: bytes, key: str) -> None:
    with pytest.raises(InvalidApplications) as refused:
        parse(content)
    assert key in str(refused.value)


@pytest.mark.parametrize("path", ["../data", "/data", "..", "a/../../b", "//data"])
@pytest.mark.parametrize("key", ["files_down.data_ids", "files_up.log"])
def test_paths_in_the_container_stay_below_the_mount(path: str, key: str) -> None:
    group, name = key.split(".")
    with pytest.raises(InvalidApplications, match=rf"{key} must be a path below .*'{path}'"):
        parse(dump(tree(handler={**HANDLER, group: {name: path}})))


@pytest.mark.parametrize("path", [".", "..data", "a/b", "a/../b", "data/"])
def test_any_path_below_the_mount_is_accepted(path: str) -> None:
    assert entrypoint(handler={**HANDLER, "files_up": {"log": path}}).files_up == {"log": path}


def test_merged_keys_may_be_overridden() -> None:
    found = parse(
        b"base: &base {v1: {run: &run {app: {cmd: [x]},"
        b" handler: {image_url: i, files_down: {}, files_up: {}}}}}\n"
        b"app: {<<: *base, v1: {fit: {<<: *run, app: {cmd: [y]}}}}"
    )
    fit = found.find("app", "v1", "fit")
    assert (found.find("app", "v1", "run"), fit and fit.cmd) == (None, ("y",))


async def test_an_invalid_file_at_start_is_named_with_its_variable(path: Path) -> None:
    path.write_bytes(b"app: 3")
    with pytest.raises(InvalidApplications) as refused:
        await Applications(str(path)).load()
    assert str(refused.value) == f"APPLICATION_CONFIG_FILE: {path}: app must be a mapping"


async def test_a_changed_file_counts_from_the_next_request(
    path: Path, applications: Applications
) -> None:
    write(path, {"other": tree()["app"]})
    catalogue = await applications.current()
    assert list(catalogue.entrypoints) == ["other"]
    assert orjson.loads(catalogue.as_json) == {"other": tree()["app"]}


@pytest.mark.parametrize("edit", [b"app: [", b"app: 3", b"app: {}\napp: {}", b"", None])
async def test_an_invalid_edit_leaves_the_last_valid_one_in_force(
    path: Path, applications: Applications, edit: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if edit is None:
        path.unlink()
    else:
        write(path, edit)
    for _ in range(3):
        assert await names(applications) == ["app"]
    assert capsys.readouterr().out.count("applications.refused") == 1
    write(path, {"other": tree()["app"]})
    assert await names(applications) == ["other"]


async def test_an_unreadable_file_is_logged_once_and_read_as_soon_as_it_can_be(
    path: Path, applications: Applications, capsys: pytest.CaptureFixture[str]
) -> None:
    path.unlink()
    path.mkdir()  # unreadable, even for root
    for _ in range(20):
        assert await names(applications) == ["app"]
    assert capsys.readouterr().out.count("applications.refused") == 1
    path.rmdir()
    write(path, {"other": tree()["app"]})
    assert await names(applications) == ["other"]


async def test_a_file_that_appears_after_the_start_counts(path: Path) -> None:
    applications = Applications(str(path))
    for _ in range(2):
        with pytest.raises(InvalidApplications):
            await applications.current()
    write(path, tree())
    assert await names(applications) == ["app"]


async def test_a_missing_file_at_start_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(InvalidApplications, match="APPLICATION_CONFIG_FILE"):
        await Applications(str(tmp_path / "none.yaml")).load()


async def test_an_application_that_is_gone_has_no_timeout(path: Path) -> None:
    write(path, tree(aws_resources={"timeout": 60}))
    applications = Applications(str(path))
    run = {"application": "app", "version": "v1", "entrypoint": "run"}
    assert await applications.timeout_of(run) == 60.0
    assert await applications.timeout_of({**run, "version": "v2"}) is None
    assert await applications.timeout_of({}) is None
