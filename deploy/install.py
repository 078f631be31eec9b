"""`python3 deploy/install.py VENV LOCK_FILE STAMP …`: install a lock file into an environment.

The stamps are touched at the end. If another `make` installs there now, wait for it: `make demo` is
often called while the first `make run` still installs.
"""

import fcntl
import os
import pathlib
import subprocess
import sys
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


def install(venv: pathlib.Path, lock_file: pathlib.Path) -> None:
    """Create the environment; its python finds the services from any working directory."""
    python = str(venv / "bin/python")
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    quiet = ["--quiet", "--disable-pip-version-check"]
    # modules are compiled where they are first used, which few of botocore's and moto's ever are
    pip = [python, "-m", "pip", "install", *quiet, "--no-compile"]
    subprocess.run([*pip, "--require-hashes", "-r", str(lock_file)], check=True)
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([python, "-c", purelib], check=True, stdout=subprocess.PIPE)
    path = pathlib.Path(os.fsdecode(packages.stdout).rstrip("\n"), "opencloud.pth")
    path.write_text(f"{REPOSITORY}\n", encoding="utf-8")


def is_newer(stamp: pathlib.Path, lock_file: pathlib.Path) -> bool:
    return stamp.exists() and stamp.stat().st_mtime >= lock_file.stat().st_mtime


def main() -> int:
    """Exit status 0, or 1 if pip failed, which has said why."""
    venv, lock_file, *stamps = map(pathlib.Path, sys.argv[1:])
    venv.mkdir(parents=True, exist_ok=True)
    with (venv / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for another make, which installs into {venv} ...", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if all(is_newer(stamp, lock_file) for stamp in stamps):
            return 0
        print(f"Installing {lock_file} into {venv}, for the first run only ...", flush=True)
        began = time.monotonic()
        try:
            install(venv, lock_file)
        except subprocess.CalledProcessError as error:
            return error.returncode
        for stamp in stamps:
            stamp.touch()
        print(f"Installed in {time.monotonic() - began:.0f} s.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
