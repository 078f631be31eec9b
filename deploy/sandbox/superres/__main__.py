"""Render a super-resolution image and its statistics from a table of localisations.

`--data` and `--config` may be folders: the first *.csv, and the first *.yaml or *.yml, below them
that is not hidden is used. Environment variables: COLORMAP, LOG_LEVEL (DEBUG, INFO, WARNING) and
SLOW_MOTION (seconds to pause after each step, for watching a job).
"""

import argparse
import logging
import math
import os
import sys
import time
from pathlib import Path

from deploy.sandbox.superres import InputError, configuration, image, localizations, statistics

log = logging.getLogger("superres")


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0, or 2 after one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="superres", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="CSV, or a folder with one")
    parser.add_argument("--config", type=Path, required=True, help="YAML, or a folder with one")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--min-photons", type=float, help="overrides the configuration")
    given = parser.parse_args(arguments)
    try:
        _start_logging(os.environ.get("LOG_LEVEL") or "INFO")
        run(given.data, given.config, given.output, min_photons=given.min_photons)
    except (InputError, OSError) as error:
        print(f"superres: {error}", file=sys.stderr)
        return 2
    return 0


def run(data: Path, config: Path, output: Path, *, min_photons: float | None = None) -> None:
    """Read, render, count, write. Raises `InputError`."""
    settings = configuration.override(
        configuration.load(_one_file(config, (".yaml", ".yml"), "configuration")),
        colormap=os.environ.get("COLORMAP") or None,
        min_photons=min_photons,
    )
    log.debug("settings: %s", settings)
    table = _one_file(data, (".csv",), "table of localisations")
    _step(1, f"reading {table.name}")
    points = localizations.read(table, units=settings.units, pixel_size_nm=settings.pixel_size_nm)
    log.info("%d localisations read", len(points))
    _step(2, "filtering by photons")
    kept = points.select(
        (points.photons >= settings.min_photons) & (points.photons <= settings.max_photons)
    )
    if not len(kept):
        bound = f" and at most {settings.max_photons:g}" if settings.max_photons < math.inf else ""
        raise InputError(
            f"none of the {len(points)} localisations has at least {settings.min_photons:g}{bound} "
            f"photons: theirs are {points.photons.min():g} to {points.photons.max():g}."
        )
    log.info("%d localisations kept", len(kept))
    output.mkdir(parents=True, exist_ok=True)
    _step(3, f"rendering at {settings.render_pixel_nm:g} nm per pixel")
    picture = image.render(kept, settings)
    picture.save(output / "render.png")
    log.info("render.png written: %d x %d pixels", picture.width, picture.height)
    _step(4, "computing statistics")
    rows = statistics.compute(kept, read=len(points))
    statistics.write(rows, output / "statistics.csv")
    for name, value, unit in rows:
        log.info("%s: %s", name, f"{value:.6g} {unit}".rstrip())
    log.info("done")


def _step(number: int, what: str) -> None:
    log.info("step %d of 4: %s", number, what)
    try:
        time.sleep(float(os.environ.get("SLOW_MOTION") or 0))
    except ValueError as error:
        raise InputError("SLOW_MOTION must be a number of seconds.") from error


def _one_file(path: Path, endings: tuple[str, ...], what: str) -> Path:
    if path.is_file():
        return path
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
            if not hidden and file.suffix.lower() in endings and file.is_file():
                return file
    raise InputError(f"no {what} (*{' or *'.join(endings)}) was given.")


def _start_logging(level: str) -> None:
    if level.upper() not in ("DEBUG", "INFO", "WARNING"):
        raise InputError(f"LOG_LEVEL must be DEBUG, INFO or WARNING, not {level!r}.")
    logging.basicConfig(level=level.upper(), stream=sys.stdout, format="%(asctime)s %(message)s")
    logging.getLogger("PIL").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
