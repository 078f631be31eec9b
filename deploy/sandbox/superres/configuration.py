"""The YAML configuration of a rendering."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.sandbox.superres import InputError
from deploy.sandbox.superres.colours import COLORMAPS
from deploy.sandbox.superres.encoding import encoding_of

UNITS: Final = ("px", "nm")


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """How localisations become an image.

    `units` of x and y are camera pixels or nanometres. A `gamma` below 1 brightens faint
    structures; `saturation` is the percentile of the non-empty pixels that is shown brightest.
    """

    pixel_size_nm: float = 100.0
    units: str = "px"
    render_pixel_nm: float = 10.0
    sigma_nm: float = 15.0
    min_photons: float = 0.0
    max_photons: float = math.inf
    colormap: str = "hot"
    gamma: float = 0.7
    saturation: float = 99.7
    scale_bar: bool = True


_RANGES: Final = {
    "pixel_size_nm": (1.0, 10_000.0),
    "render_pixel_nm": (0.5, 1_000.0),
    "sigma_nm": (0.0, 1_000.0),
    "min_photons": (0.0, math.inf),
    "max_photons": (0.0, math.inf),
    "gamma": (0.05, 5.0),
    "saturation": (1.0, 100.0),
}


def load(path: Path) -> Configuration:
    """Read a configuration file. Raises `InputError` naming the invalid key."""
    try:
        content = yaml.safe_load(path.read_text(encoding=encoding_of(path)))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path.name}, line {line}: not YAML, {error.problem}.") from error
    except yaml.YAMLError as error:
        sentence = " ".join(str(error).split())
        raise InputError(f"{path.name} is not readable as YAML: {sentence}.") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise InputError(f"{path.name} must hold keys with values, such as 'sigma_nm: 15'.")
    return parse(content, path.name)


def parse(content: Mapping[Any, Any], source: str = "configuration") -> Configuration:
    """Validate every key. Raises `InputError`."""
    known = {field.name: field for field in fields(Configuration)}
    if unknown := [key for key in content if key not in known]:
        raise InputError(
            f"{source}: unknown key '{unknown[0]}'; known are {', '.join(sorted(known))}."
        )
    values = {key: _value(source, key, value) for key, value in content.items()}
    configuration = Configuration(**values)
    if configuration.max_photons < configuration.min_photons:
        raise InputError(f"{source}: max_photons must not be smaller than min_photons.")
    if configuration.sigma_nm > 50 * configuration.render_pixel_nm:
        raise InputError(f"{source}: sigma_nm must not exceed 50 times render_pixel_nm.")
    return configuration


def override(configuration: Configuration, **values: object) -> Configuration:
    """The configuration with the values that are not None. Raises `InputError`."""
    given = {key: value for key, value in values.items() if value is not None}
    return replace(configuration, **{key: _value("override", key, given[key]) for key in given})


def _value(source: str, key: str, value: Any) -> Any:
    if key == "colormap":
        return _choice(source, key, value, tuple(COLORMAPS))
    if key == "units":
        return _choice(source, key, value, UNITS)
    if key == "scale_bar":
        if not isinstance(value, bool):
            raise InputError(f"{source}: scale_bar must be true or false, not {value!r}.")
        return value
    return _number(source, key, value)


def _choice(source: str, key: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise InputError(f"{source}: {key} must be one of {', '.join(allowed)}, not {value!r}.")
    return str(value)


def _number(source: str, key: str, value: Any) -> float:
    least, most = _RANGES[key]
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        raise InputError(f"{source}: {key} must be a number, not {value!r}.")
    if not least <= number <= most:
        limits = f"at least {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"
        raise InputError(f"{source}: {key} must be {limits}, not {number:g}.")
    return number
