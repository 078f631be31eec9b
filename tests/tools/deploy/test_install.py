"""`make install`: what its interpreter can start, and from where."""

import shutil
import subprocess
from pathlib import Path

from tests.tools.deploy.places import REPOSITORY


def test_the_environment_finds_the_services_from_any_working_directory(tmp_path: Path) -> None:
    checkout, elsewhere = tmp_path / "a checkout", tmp_path / "elsewhere"
    for folder in (checkout / "requirements", checkout / "gateway", elsewhere):
        folder.mkdir(parents=True)
    shutil.copy(REPOSITORY / "Makefile", checkout)
    (checkout / "requirements/dev.txt").touch()  # the dependencies are not what is tried here
    (checkout / "gateway/__main__.py").write_text("print('started')")
    subprocess.run(["make", "-s", "install"], cwd=checkout, check=True)
    ran = subprocess.run(
        [checkout / ".venv/bin/python", "-m", "gateway"],
        cwd=elsewhere,
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "started\n"
