"""The API document pleases the usual linters, but for one path that is so on the wire."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.routes import add_routes, openapi_document
from tests.support.tools import needs, tool

ON_THE_WIRE = "/files/{f_type}/{base_path}/"


@pytest.fixture
def document(tmp_path: Path) -> Path:
    app = web.Application()
    add_routes(app, accounts=True)
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(openapi_document(app, accounts=True)))
    return path


def findings(linter: str, *arguments: str | Path, folder: Path) -> Any:
    command = [tool(linter), "lint", "openapi.json", *arguments]
    answer = subprocess.run(command, check=False, cwd=folder, capture_output=True)
    return json.loads(answer.stdout)


@needs("spectral")
def test_spectral_finds_nothing_else(document: Path) -> None:
    ruleset = document.with_name("ruleset.yaml")
    ruleset.write_text("extends: ['spectral:oas']")
    found = findings("spectral", "-r", ruleset, "-f", "json", folder=document.parent)
    assert [(item["code"], item["path"]) for item in found] == [
        ("path-keys-no-trailing-slash", ["paths", ON_THE_WIRE])
    ]


@needs("redocly")
def test_redocly_finds_nothing_else(document: Path) -> None:
    options = ("--extends=recommended", "--format=json")
    found = findings("redocly", *options, folder=document.parent)["problems"]
    pointer = f"#/paths/{ON_THE_WIRE.replace('/', '~1')}"
    assert [(item["ruleId"], item["location"][0]["pointer"]) for item in found] == [
        ("no-path-trailing-slash", pointer)
    ]
