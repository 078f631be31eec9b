"""The example application: its results, and its messages about bad input."""

import csv
from pathlib import Path

import numpy as np
import pytest

from deploy.sandbox.superres import InputError, image, localizations, sample
from deploy.sandbox.superres.__main__ import main
from deploy.sandbox.superres.configuration import Configuration, parse

TABLE = "frame,extra,photons,y,x\n1,a,100,0,0\n2,b,200,0,30\n2,c,600,40,0\n11,d,50,9,9\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "points.csv").write_text(TABLE)
    (tmp_path / "render.yaml").write_text("units: nm\nmin_photons: 100\nrender_pixel_nm: 5\n")
    return tmp_path


def render(folder: Path, *more: str) -> int:
    places = [f"--{name}={folder}" for name in ("data", "config")]
    return main([*places, f"--output={folder / 'output'}", *more])


def test_known_points_give_known_statistics(folder: Path) -> None:
    assert render(folder) == 0
    with (folder / "output/statistics.csv").open() as file:
        rows = {row["quantity"]: float(row["value"]) for row in csv.DictReader(file)}
    assert rows == {
        "localizations_read": 4,
        "localizations_kept": 3,
        "first_frame": 1,
        "last_frame": 2,
        "frames": 2,
        "localizations_per_frame": 1.5,
        "mean_photons": 300,
        "median_photons": 200,
        "field_of_view_x": 30,
        "field_of_view_y": 40,
        "density": 2500,
        "mean_nearest_neighbour_distance": pytest.approx((30 + 30 + 40) / 3, rel=1e-5),
    }


def test_blur_keeps_the_number_of_localisations() -> None:
    picture = np.zeros((41, 31), dtype=np.float32)
    picture[20, 15] = 3.0
    blurred = image.blur(picture, 2.0)
    assert blurred.sum() == pytest.approx(3.0, rel=1e-3)
    assert blurred[20, 15] == pytest.approx(3.0 / (2 * np.pi * 4.0), rel=1e-2)
    assert blurred[18, 15] == pytest.approx(blurred[20, 17], rel=1e-4)


def test_each_localisation_is_in_its_pixel() -> None:
    x, y = np.array([0.0, 95.0]), np.array([0.0, 31.0])
    ones = np.ones(2)
    points = localizations.Localizations(x, y, ones.astype(np.int64), ones)
    counts = image.histogram(points, Configuration(render_pixel_nm=10, sigma_nm=0))
    assert [tuple(place) for place in np.argwhere(counts)] == [(2, 2), (5, 11)]


def test_the_sample_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    first, _ = sample.write(tmp_path / "a", count=500, seed=2)
    second, _ = sample.write(tmp_path / "b", count=500, seed=2)
    third, _ = sample.write(tmp_path / "c", count=500, seed=3)
    assert first.read_bytes() == second.read_bytes() != third.read_bytes()


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("x,y", 200.0),
        ("x [nm],y [nm]", 2.0),
        ("X (px),Y (px)", 200.0),
        ("x [um],y [um]", 2e3),
        ("x [\N{MICRO SIGN}m],y [nm]", 2e3),
        ("x [\N{GREEK SMALL LETTER MU}m],y [nm]", 2e3),
        ("x (mm),y (mm)", 2e6),
        ("x [\N{LATIN CAPITAL LETTER A WITH RING ABOVE}],y [nm]", 0.2),
        ("x [\N{ANGSTROM SIGN}],y [nm]", 0.2),
        ("x[nanometer],y[Nanometres]", 2.0),
    ],
)
def test_a_unit_in_the_heading_counts(tmp_path: Path, heading: str, expected: float) -> None:
    file = tmp_path / "points.csv"
    file.write_text(f'# from a program\n"frame";{heading.replace(",", ";")};intensity\n1;2;2;9\n')
    points = localizations.read(file, units="px", pixel_size_nm=100)
    assert points.x.tolist() == pytest.approx([expected])


@pytest.mark.parametrize(
    ("heading", "sentence"),
    [
        ("x [],y,frame,photons", "'x' must be in nm, um, mm, angstrom or px, not in []."),
        ("x,y [furlong],frame,photons", "'y' must be in nm, um, mm, angstrom or px, not in [fur"),
        ("x,y,t [s],photons", "'frame' must be in frames, not in [s]."),
        ("x,y,frame,intensity [ADU]", "'photons' must be in photons, not in [ADU]."),
    ],
)
def test_a_unit_that_is_not_known_is_refused(tmp_path: Path, heading: str, sentence: str) -> None:
    file = tmp_path / "points.csv"
    file.write_text(f"{heading}\n1,1,1,9\n")
    with pytest.raises(InputError) as caught:
        localizations.read(file, units="px", pixel_size_nm=100)
    assert sentence in str(caught.value)


ENCODINGS = ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_encodings_of_windows_are_read(folder: Path, encoding: str) -> None:
    micro = "\N{MICRO SIGN}m"
    table = f"x [{micro}];y [{micro}];frame;intensity [photon]\r\n0.5;1;1;900\r\n"
    (folder / "points.csv").write_bytes(table.encode(encoding))
    (folder / "render.yaml").write_bytes(f"sigma_nm: 12  # 0.012 {micro}\r\n".encode(encoding))
    points = localizations.read(folder / "points.csv", units="px", pixel_size_nm=100)
    assert (points.x.tolist(), points.y.tolist()) == ([500.0], [1000.0])
    assert render(folder) == 0


def test_a_picture_is_not_taken_for_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert render(folder) == 0
    (folder / "output/statistics.csv").unlink()
    (folder / "output/render.png").rename(folder / "points.csv")
    assert render(folder) == 2
    assert "points.csv is not a text file in UTF-8, UTF-16 or W" in capsys.readouterr().err


def test_litter_and_hidden_files_are_not_taken_for_inputs(folder: Path) -> None:
    for name in (".hidden/a.csv", ".a.csv", "._points.csv", "__MACOSX/._points.csv", "._a.yaml"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0\x05\x16\x07")
    assert render(folder) == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "superres: no table of localisations (*.csv) was given."),
        ("", "points.csv is empty."),
        ("x,y,frame\n1,1,1\n", "line 1: the column 'photons' is missing (found: x, y, f"),
        ("x,y,frame,photons\n", "points.csv has a heading but no localisations."),
        ("x,y,frame,photons\n1,1,1,1\n\n1,a,1,1\n", "line 4: 'y' must be a number, not"),
        ("x,y,frame,photons\n1,1,1,nan\n", "line 2: 'photons' must be a number, not"),
        ("x,y,frame,photons\n1,1,1\n", "line 2: there is no value for 'photons'."),
        ("x,y,frame,photons\n1,1,1,5\n", "none of the 1 localisations has at least"),
        ("x,y,frame,photons\n1,1,1,500\n9e9,1,1,500\n", "more than 8192 on a side"),
        ("x,y\x00,frame,photons\n1,1,1,500\n", "the column 'y' is missing"),
    ],
)
def test_bad_input_is_refused_with_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str | None, sentence: str
) -> None:
    (folder / "points.csv").unlink()
    if text is not None:
        (folder / "points.csv").write_text(text)
    assert render(folder) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (folder / "output/render.png").exists()


def test_a_configuration_that_is_no_yaml_is_refused_naming_the_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "render.yaml").write_text("sigma_nm: 12\nunits: [nm\n")
    assert render(folder) == 2
    sentence = "superres: render.yaml, line 3: not YAML, expected ',' or ']'"
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"sigma": 3}, "unknown key 'sigma'; known are"),
        ({"sigma_nm": "wide"}, "sigma_nm must be a number, not 'wide'."),
        ({"render_pixel_nm": 0}, "render_pixel_nm must be from 0.5 to 1000, not 0."),
        ({"gamma": True}, "gamma must be a number, not True."),
        ({"colormap": "jet"}, "colormap must be one of hot, gray,"),
        ({"scale_bar": "yes"}, "scale_bar must be true or false, not 'yes'."),
        ({"min_photons": 5, "max_photons": 4}, "max_photons must not be smaller"),
    ],
)
def test_a_bad_configuration_is_refused_naming_the_key(
    content: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InputError) as caught:
        parse(content)
    assert sentence in str(caught.value)
