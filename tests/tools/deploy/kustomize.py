"""As much of kustomize as `deploy/kubernetes` uses, so that it can be rendered anywhere.

A kustomization that uses more is refused. Where `kubectl` is installed, a test compares the two.
"""

import hashlib
import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

_KEYS = {
    "apiVersion",
    "kind",
    "namespace",
    "resources",
    "images",
    "configMapGenerator",
    "patches",
    "replacements",
}
_CLUSTER_WIDE = {"Namespace"}
_HASHED = "\0hashed"
"""Marks, in a manifest under way, that its name will get a hash of its content."""


def render(folder: Path) -> list[Manifest]:
    """What `kubectl kustomize` makes of the folder, in no particular order."""
    manifests = _build(folder)
    names = {}
    for manifest in manifests:
        if manifest.pop(_HASHED, False):
            before = manifest["metadata"]["name"]
            names[before] = manifest["metadata"]["name"] = f"{before}-{_hash(manifest)}"
    for reference in _config_map_references(manifests):
        reference["name"] = names.get(reference["name"], reference["name"])
    return manifests


def _build(folder: Path) -> list[Manifest]:
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(kustomization) - _KEYS
    assert not unknown, f"{folder}: this renderer does not know {sorted(unknown)}"
    manifests: list[Manifest] = []
    for entry in kustomization.get("resources", ()):
        path = folder / entry
        manifests += _build(path) if path.is_dir() else yaml.safe_load_all(path.read_text())
    for generator in kustomization.get("configMapGenerator", ()):
        _generate(folder, generator, manifests)
    for patch in kustomization.get("patches", ()):
        _patch(patch, manifests)
    for manifest in manifests:
        if "namespace" in kustomization and manifest["kind"] not in _CLUSTER_WIDE:
            manifest["metadata"]["namespace"] = kustomization["namespace"]
    for image in kustomization.get("images", ()):
        for container in containers(manifests):
            if container["image"] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
    for replacement in kustomization.get("replacements", ()):
        _replace(replacement, manifests)
    return manifests


def containers(manifests: list[Manifest]) -> Iterator[Manifest]:
    """Every container of every workload."""
    for manifest in manifests:
        if manifest["kind"] in {"Deployment", "Job"}:
            yield from manifest["spec"]["template"]["spec"]["containers"]


def _generate(folder: Path, generator: Manifest, manifests: list[Manifest]) -> None:
    data = dict(literal.split("=", 1) for literal in generator.get("literals", ()))
    data |= {name: (folder / name).read_text() for name in generator.get("files", ())}
    if generator.get("behavior") == "merge":
        (target,) = (m for m in manifests if _is(m, "ConfigMap", generator["name"]))
        target["data"] |= data
        return
    options = generator.get("options", {})
    manifests.append(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": generator["name"]},
            "data": data,
            _HASHED: not options.get("disableNameSuffixHash", False),
        }
    )


def _patch(patch: Manifest, manifests: list[Manifest]) -> None:
    kind, name = patch["target"]["kind"], patch["target"].get("name")
    targets = [manifest for manifest in manifests if _is(manifest, kind, name)]
    assert targets, f"there is no {kind} {name} to patch"
    for target in targets:
        for operation in yaml.safe_load(patch["patch"]):
            *parents, last = operation["path"].split("/")[1:]
            node: Any = target
            for part in parents:
                node = node[int(part) if isinstance(node, list) else part]
            key = int(last) if isinstance(node, list) else last
            assert operation["op"] in {"add", "replace"}
            assert operation["op"] == "add" or node[key] is not None
            node[key] = deepcopy(operation["value"])


def _replace(replacement: Manifest, manifests: list[Manifest]) -> None:
    """Copy one field into others, between delimiters; only into fields that exist."""
    source = replacement["source"]
    (found,) = (m for m in manifests if _is(m, source["kind"], source["name"]))
    ((holder, last),) = _places(found, source["fieldPath"].split("."))
    for target in replacement["targets"]:
        select, options = target["select"], target["options"]
        for manifest in manifests:
            if _is(manifest, select["kind"], select["name"]):
                for path in target["fieldPaths"]:
                    places = list(_places(manifest, path.split(".")))
                    assert places, f"there is no {path} to replace"
                    for node, key in places:
                        parts = node[key].split(options["delimiter"])
                        parts[options["index"]] = holder[last]
                        node[key] = options["delimiter"].join(parts)


def _places(node: Any, path: list[str]) -> Iterator[tuple[Any, str]]:
    """Where a path leads: mappings, each with its key; `*` stands for every element of a list."""
    first, *rest = path
    if first == "*":
        for element in node:
            yield from _places(element, rest)
    elif first in node:
        if rest:
            yield from _places(node[first], rest)
        else:
            yield node, first


def _is(manifest: Manifest, kind: str, name: str | None) -> bool:
    return manifest["kind"] == kind and name in {None, manifest["metadata"]["name"]}


def _config_map_references(manifests: list[Manifest]) -> Iterator[Manifest]:
    for container in containers(manifests):
        for source in container.get("envFrom", ()):
            yield source["configMapRef"]
    for manifest in manifests:
        if manifest["kind"] in {"Deployment", "Job"}:
            for volume in manifest["spec"]["template"]["spec"].get("volumes", ()):
                if "configMap" in volume:
                    yield volume["configMap"]


def _hash(manifest: Manifest) -> str:
    """kustomize's hash of a ConfigMap, spelled with letters that make no words."""
    content = {"data": manifest["data"], "kind": "ConfigMap", "name": ""}
    text = json.dumps(content, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    return digest.translate(str.maketrans("013ae", "ghkmt"))
