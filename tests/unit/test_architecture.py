"""The import rules: services import only `common`; inside `common` arrows go one way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("gateway", "dispatcher", "notifier")


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def modules(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"no modules below {package}"
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_imports_nothing_of_ours_but_common(service: str) -> None:
    others = {*SERVICES, "deploy", "tests", "benchmarks"} - {service}
    for path in modules(service):
        wrong = {name for name in imports_of(path) if name.partition(".")[0] in others}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_common_imports_no_service() -> None:
    outside = {*SERVICES, "deploy", "tests", "benchmarks"}
    for path in modules("common"):
        wrong = {name for name in imports_of(path) if name.partition(".")[0] in outside}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_arrows_inside_common_make_no_circle() -> None:
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in modules("common")
        if "versions" not in path.parts
    }
    arrows = {
        name: {found for found in imports_of(path) if found in names and found != name}
        for name, path in names.items()
    }
    settled: set[str] = set()
    while True:
        free = {name for name in arrows if name not in settled and arrows[name] <= settled}
        if not free:
            break
        settled |= free
    circle = sorted(set(arrows) - settled)
    assert not circle, f"these import each other in a circle: {circle}"


@pytest.mark.parametrize("path", [*modules("common"), *(p for s in SERVICES for p in modules(s))])
def test_only_settings_read_the_environment(path: Path) -> None:
    if path.name in {"settings.py", "environment.py"}:
        return
    source = path.read_text()
    assert "os.environ" not in source
    assert "getenv(" not in source


def test_only_one_module_decides_about_statuses() -> None:
    deciding = [
        path.relative_to(ROOT)
        for package in ("common", *SERVICES)
        for path in modules(package)
        if "lifecycle" not in path.name and "decide(" in path.read_text()
    ]
    assert [str(path) for path in deciding] == ["common/jobs/updates.py"]
