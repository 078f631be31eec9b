"""The example jobs of `/openapi.json`, with an application that is configured."""

from typing import Any, Final

import orjson

from common.config.catalogue import Catalogue, Entrypoint
from gateway.jobs.schemas import APPLICATION_EXAMPLE

_INPUT: Final = "exp1"


class ConfiguredExamples:
    """An OpenAPI document whose examples follow the application configuration."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._catalogue: Catalogue | None = None
        self._body = b""

    def render(self, catalogue: Catalogue) -> bytes:
        """The document as JSON; its example jobs run the first application of `catalogue`."""
        if catalogue is not self._catalogue:
            self._body = orjson.dumps(_replaced(self._document, _first_choice(catalogue)))
            self._catalogue = catalogue
        return self._body


def _first_choice(catalogue: Catalogue) -> dict[str, Any]:
    """What a submission says about the first entrypoint; nothing without any."""
    for application, versions in catalogue.entrypoints.items():
        for version, entrypoints in versions.items():
            for name, entrypoint in entrypoints.items():
                chosen = {"application": application, "version": version, "entrypoint": name}
                return {"application": chosen, "attributes": _attributes(entrypoint)}
    return {}


def _attributes(entrypoint: Entrypoint) -> dict[str, Any]:
    taken = entrypoint.files_down
    files_down = {
        "config_id": _INPUT if "config_id" in taken else None,
        "data_ids": [_INPUT] if "data_ids" in taken else [],
        "artifact_ids": [],
    }
    return {"files_down": files_down, "env_vars": {}}


def _replaced(node: Any, chosen: dict[str, Any]) -> Any:
    """The document with `chosen` in each example of a submission or of a job."""
    if isinstance(node, list):
        return [_replaced(item, chosen) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("application") == APPLICATION_EXAMPLE and "attributes" in node:
        return {**node, **chosen}
    return {key: _replaced(value, chosen) for key, value in node.items()}
