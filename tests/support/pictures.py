"""Image files of the kinds that people have, of one picture."""

from pathlib import Path

import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # EXIF tag


def picture(channels: int, size: tuple[int, int] = (407, 301)) -> Image.Image:
    """Make a picture with soft edges, as photographs have them: `channels` 3 or 4."""
    noise = np.random.default_rng(0).integers(0, 256, (size[1] // 8, size[0] // 8, channels), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def opaque(folder: Path) -> None:
    """Write files of 8 bits a value, without transparency."""
    rgb = picture(3)
    for name in ("rgb.png", "rgb.bmp", "progressive.jpg"):
        rgb.save(folder / name, progressive=True)
    rgb.save(folder / "lossless.webp", lossless=True)
    rgb.save(folder / "lossy.webp", quality=80)
    for subsampling in (0, 1, 2):
        rgb.save(folder / f"subsampled{subsampling}.jpg", subsampling=subsampling)
    for orientation in range(1, 9):
        rgb.save(folder / f"oriented{orientation}.jpg", exif=oriented(orientation))
    rgb.save(folder / "oriented.png", exif=oriented(6))
    for mode in ("L", "1", "P"):
        rgb.convert(mode).save(folder / f"{mode}.png")
    rgb.convert("L").save(folder / "L.jpg")
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.crop((0, 0, 3, 5)).save(folder / "tiny.png")
    rgb.crop((0, 0, 400, 1)).save(folder / "line.png")


def others(folder: Path) -> None:
    """Write files that are transparent, or have 16 bits a value."""
    rgba = picture(4)
    rgba.save(folder / "rgba.png")
    rgba.save(folder / "rgba.webp", lossless=True)
    rgba.convert("LA").save(folder / "la.png")
    picture(3).convert("P").save(folder / "palette.png", transparency=3)
    Image.fromarray(np.asarray(picture(3).convert("L")).astype(np.uint16) * 255 + 7).save(folder / "16.png")
