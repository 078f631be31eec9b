"""Rules that import-linter (pyproject.toml) cannot express."""

import ast
import re
import tomllib
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


WITH_WEB = re.compile(
    r"gateway/(app|routes|__main__|meta|http/.*|(\w+/)+handlers|files/uploads|uploads/bodies)\.py"
)


@pytest.mark.parametrize("path", modules("gateway"))
def test_in_the_gateway_only_the_edge_knows_requests_and_responses(path: Path) -> None:
    if WITH_WEB.fullmatch(str(path.relative_to(ROOT))) is None:
        assert not {name for name in imports_of(path) if name.startswith("aiohttp.web")}


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


def test_every_package_of_the_services_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = {
        str(init.parent.relative_to(ROOT)).replace("/", ".")
        for package in ("common", *SERVICES)
        for init in (ROOT / package).rglob("__init__.py")
    }
    assert set(project["tool"]["setuptools"]["packages"]) == folders
