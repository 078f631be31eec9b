"""`make install`: what its interpreter can start, and from where; what `make run` installs."""

import ast
import fcntl
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.tools.deploy.places import REPOSITORY

SANDBOX = ("common", "gateway", "dispatcher", "notifier", "deploy")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout without dependencies, which are not what is tried here."""
    checkout = tmp_path / "a checkout"
    for folder in ("requirements", "gateway", "deploy"):
        (checkout / folder).mkdir(parents=True)
    shutil.copy(REPOSITORY / "Makefile", checkout)
    shutil.copy(REPOSITORY / "deploy/install.py", checkout / "deploy")
    for name in ("dev", "sandbox"):
        (checkout / f"requirements/{name}.txt").touch()
    (checkout / "gateway/__main__.py").write_text("print('started')")
    return checkout


def make(target: str, checkout: Path) -> str:
    """What `make` prints."""
    command = ["make", "-s", target, f"PYTHON={sys.executable}"]
    return subprocess.run(
        command, cwd=checkout, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def locked(name: str) -> dict[str, str]:
    """The requirements of a lock file, each with its hashes, by name, version and marker."""
    text = (REPOSITORY / f"requirements/{name}.txt").read_text()
    return dict(re.findall(r"^(\S.*?) \\\n((?:    .*\n)+)", text, re.M))


def test_the_environment_finds_the_services_from_any_working_directory(
    checkout: Path, tmp_path: Path
) -> None:
    assert "Installing requirements/dev.txt into .venv" in make("install", checkout)
    ran = subprocess.run(
        [checkout / ".venv/bin/python", "-m", "gateway"],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "started\n"
    assert make("install", checkout) == ""


def test_what_tests_need_comes_on_top_of_what_the_sandbox_needs(checkout: Path) -> None:
    assert "Installing requirements/sandbox.txt" in make(".venv/.installed-sandbox", checkout)
    assert "Installing requirements/dev.txt" in make("install", checkout)
    assert make(".venv/.installed-sandbox", checkout) == ""
    (checkout / "requirements/sandbox.txt").touch()
    assert "Installing requirements/sandbox.txt" in make(".venv/.installed-sandbox", checkout)
    assert make("install", checkout) == ""


def test_a_second_make_waits_for_the_one_that_installs(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    with (checkout / ".venv/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = ["make", "-s", ".venv/.installed-sandbox", f"PYTHON={sys.executable}"]
        with subprocess.Popen(command, cwd=checkout, stdout=subprocess.PIPE, text=True) as second:
            assert second.stdout is not None
            assert second.stdout.readline().startswith("Waiting for another make")
            (checkout / ".venv/.installed-sandbox").touch()
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert second.stdout.read() == ""
        assert second.returncode == 0
    assert not (checkout / ".venv/bin").exists()


def test_each_lock_file_is_a_part_of_the_next_one() -> None:
    run, sandbox, dev = (locked(name) for name in ("run", "sandbox", "dev"))
    assert run
    assert run.items() < sandbox.items() < dev.items()


def test_the_lock_files_hold_no_addresses() -> None:
    for file in (REPOSITORY / "requirements").iterdir():
        assert "://" not in file.read_text()


def imported() -> set[str]:
    """The packages that the sandbox and the services import."""
    found: set[str] = set()
    for part in SANDBOX:
        for path in (REPOSITORY / part).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found.update(alias.name for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found.add(node.module)
    return {module.partition(".")[0] for module in found}


def test_what_the_sandbox_imports_is_in_its_lock_file() -> None:
    names = {re.split("[=;]", entry)[0].strip() for entry in locked("sandbox")}
    needed = imported() - set(SANDBOX)
    assert "aiohttp" in needed
    for package, providers in packages_distributions().items():
        if package in needed:
            assert {name.lower().replace("_", "-") for name in providers} & names, package


@pytest.mark.parametrize(
    "name", ["cfn-lint", "kubernetes-validate", "mypy", "pytest", "schemathesis", "sympy"]
)
def test_the_sandbox_installs_nothing_that_it_does_not_need(name: str) -> None:
    assert not [entry for entry in locked("sandbox") if entry.startswith(name)]
