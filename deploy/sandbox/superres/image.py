"""From localisations to a picture: blurred 2D histogram, colours, scale bar."""

import math
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from deploy.sandbox.superres import InputError
from deploy.sandbox.superres.colours import colour
from deploy.sandbox.superres.configuration import Configuration
from deploy.sandbox.superres.localizations import Localizations

Picture = npt.NDArray[np.float32]

_LARGEST_SIDE: Final = 8_192
_MARGIN_SIGMAS: Final = 4.0


def histogram(points: Localizations, configuration: Configuration) -> Picture:
    """Localisations per rendered pixel, rows along y. Raises `InputError` for too many pixels."""
    pixel = configuration.render_pixel_nm
    margin = max(_MARGIN_SIGMAS * configuration.sigma_nm, 2 * pixel)
    x, y = points.x - points.x.min() + margin, points.y - points.y.min() + margin
    width = math.ceil((x.max() + margin) / pixel)
    height = math.ceil((y.max() + margin) / pixel)
    if max(width, height) > _LARGEST_SIDE:
        raise InputError(
            f"the image would have {width:.4g} x {height:.4g} pixels, more than {_LARGEST_SIDE} "
            "on a side: choose a larger render_pixel_nm, or check pixel_size_nm and units."
        )
    index = (y / pixel).astype(np.int64) * width + (x / pixel).astype(np.int64)
    counts = np.bincount(index, minlength=width * height)
    return counts.reshape(height, width).astype(np.float32)


def blur(picture: Picture, sigma_pixels: float) -> Picture:
    """Convolution with a normalised Gaussian, along both axes in turn."""
    radius = math.ceil(_MARGIN_SIGMAS * sigma_pixels)
    if sigma_pixels <= 0 or radius == 0:
        return picture
    steps = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (steps / sigma_pixels) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        padded = np.pad(picture, [(radius, radius) if a == axis else (0, 0) for a in (0, 1)])
        total = np.zeros_like(picture)
        length = picture.shape[axis]
        for offset, weight in enumerate(kernel.astype(np.float32)):
            part = slice(offset, offset + length)
            total += weight * (padded[part] if axis == 0 else padded[:, part])
        picture = total
    return picture


def tone(picture: Picture, configuration: Configuration) -> Picture:
    """Values from 0 to 1 with the configured saturation and gamma."""
    lit = picture[picture > picture.max() * 1e-3]
    brightest = float(np.percentile(lit, configuration.saturation)) if lit.size else 1.0
    scaled = np.clip(picture / max(brightest, 1e-12), 0.0, 1.0)
    return np.asarray(scaled**configuration.gamma, dtype=np.float32)


def render(points: Localizations, configuration: Configuration) -> Image.Image:
    """The finished picture."""
    picture = blur(
        histogram(points, configuration), configuration.sigma_nm / configuration.render_pixel_nm
    )
    image = Image.fromarray(colour(tone(picture, configuration), configuration.colormap))
    if configuration.scale_bar:
        draw_scale_bar(image, configuration.render_pixel_nm)
    return image


def scale_bar_length(field_nm: float) -> float:
    """A round length (1, 2 or 5 times a power of ten, in nm) of about a fifth of the field."""
    wanted = field_nm / 5
    power = 10.0 ** math.floor(math.log10(wanted))
    return float(max(step * power for step in (1, 2, 5) if step * power <= wanted))


def draw_scale_bar(image: Image.Image, pixel_nm: float) -> None:
    """A white bar with its length in the lower right corner."""
    if min(image.size) < 64:
        return
    length = scale_bar_length(image.width * pixel_nm)
    text = f"{length / 1000:g} um" if length >= 1000 else f"{length:g} nm"
    pad, thickness = image.width // 40 + 4, max(3, image.height // 160)
    right, bottom = image.width - pad, image.height - pad
    left = right - round(length / pixel_nm)
    draw = ImageDraw.Draw(image)
    draw.rectangle((left, bottom - thickness, right, bottom), fill="white")
    font = ImageFont.load_default(size=max(12, image.height // 40))
    draw.text(
        ((left + right) / 2, bottom - 2 * thickness), text, fill="white", font=font, anchor="mb"
    )
