"""The commands of the shipped applications, and of README's example, on folders with litter."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.tools.deploy.places import REPOSITORY

README = (REPOSITORY / "README.md").read_text()
EXAMPLE = next(text for text in re.findall(r"```yaml\n(.+?)```", README, re.S) if "cmd:" in text)
CONFIGURED = {
    **yaml.safe_load((REPOSITORY / "application_config.yaml").read_text()),
    **yaml.safe_load(EXAMPLE),
}
COMMANDS: dict[str, str] = {
    f"{application} {entrypoint}": " ".join(parts["app"]["cmd"])
    for application, versions in CONFIGURED.items()
    for entrypoints in versions.values()
    for entrypoint, parts in entrypoints.items()
}
INPUTS = {
    "decode train": {"data/bead.mat": "calib_path", "config/p.yaml": "param_path"},
    "decode fit": {
        "data/frames.tif": "frame_path",
        "config/p.yaml": "frame_meta_path",
        "artifact/model.pt": "model_path",
    },
    "comet run": {"data/points.csv": "localizations_path", "config/p.yaml": "param_path"},
    "cellcount count": {"data/cells.tif": "image", "config/p.yaml": "settings"},
}
LITTER = (".DS_Store", "Thumbs.db", "desktop.ini", ".hidden/a{}", ".a{}", "._{}", "__MACOSX/._{}")


def run(command: str, mount: Path) -> subprocess.CompletedProcess[str]:
    """Run the command with `mount` for /data; its program prints its arguments, one a line."""
    program = mount.parent / "program"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    command = re.sub(r"(?<=[ =])/data/", f"{mount}/", command)
    command, programs = re.subn(r"exec \S+", f"exec {program}", command)
    assert programs == 1
    return subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)


def plant(mount: Path, paths: list[str]) -> None:
    for path in paths:
        (mount / path).parent.mkdir(parents=True, exist_ok=True)
        (mount / path).write_text("content")


def litter(mount: Path, path: str) -> None:
    folder, _, name = path.rpartition("/")
    plant(mount, [f"{folder}/{pattern.format(name)}" for pattern in LITTER])


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    mount = tmp_path / "mount"
    for folder in ("data", "config", "artifact"):
        (mount / folder).mkdir(parents=True)
    return mount


def test_every_command_is_tried() -> None:
    assert set(COMMANDS) == set(INPUTS)


@pytest.mark.parametrize("name", INPUTS)
def test_litter_and_hidden_files_are_not_taken_for_inputs(name: str, mount: Path) -> None:
    for path in INPUTS[name]:
        litter(mount, path)
    plant(mount, list(INPUTS[name]))
    ran = run(COMMANDS[name], mount)
    assert (ran.returncode, ran.stderr) == (0, "")
    shown = ran.stdout.replace("\n", " ").replace("=", " ")
    for path, argument in INPUTS[name].items():
        assert f"--{argument} {mount}/{path} " in shown


@pytest.mark.parametrize(
    ("name", "missing"), [(name, path) for name, paths in INPUTS.items() for path in paths]
)
def test_an_input_that_is_not_there_ends_the_command_with_a_sentence(
    name: str, missing: str, mount: Path
) -> None:
    plant(mount, [path for path in INPUTS[name] if path != missing])
    litter(mount, missing)
    ran = run(COMMANDS[name], mount)
    assert ran.returncode != 0
    assert ran.stdout == ""
    kind = missing.partition("/")[0]
    field = "config_id names" if kind == "config" else f"{kind}_ids name"
    assert re.search(rf"{field} no \*{Path(missing).suffix}[ ,].*file$", ran.stderr.strip())


@pytest.mark.parametrize(
    ("name", "usual", "path"),
    [
        ("comet run", "data/points.csv", "data/points.hdf5"),
        ("comet run", "data/points.csv", "data/deep/Points 1.H5"),
        ("comet run", "data/points.csv", "data/POINTS.CSV"),
        ("decode fit", "data/frames.tif", "data/FRAMES.TIF"),
        ("decode fit", "data/frames.tif", "data/frames.ome.tiff"),
        ("decode train", "config/p.yaml", "config/p.yml"),
    ],
)
def test_other_endings_of_the_same_kind_count(
    name: str, usual: str, path: str, mount: Path
) -> None:
    plant(mount, [path, *(other for other in INPUTS[name] if other != usual)])
    ran = run(COMMANDS[name], mount)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"={mount}/{path}\n" in ran.stdout
