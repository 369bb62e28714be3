"""Image files as the model wants them: training and serving decode by this code, so that both see the same pixels."""

import io
import warnings
from itertools import product
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from serving.files import open_regular, too_many_open

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MAX_PIXELS = 50_000_000  # of an image file
TILE = 1024  # pixels a side that are laid on black at a time: a whole image would be in memory four times
MAX_SIDE = 4096  # of a model's input: the largest transform.image_size, so that a model's word makes no larger images
ORIENTATION = 0x0112  # EXIF tag

Resize = Literal["stretch", "crop"]


class ImageError(Exception):
    """A file is not an image that can be classified."""


def decode(
    path: Path, image_shape: tuple[int, int, int], resize: Resize = "stretch", content: bytes | None = None
) -> NDArray[np.uint8]:
    """Read an image file as `uint8 [H, W, C]`; see `read` and `fit`."""
    return fit(read(path, content), image_shape, resize)


def read(path: Path, content: bytes | None = None) -> Image.Image:
    """Read an image file, turned upright.

    Args:
        content: of the file, if it was read already.

    Raises:
        ImageError: the file is missing, no regular file, broken, animated, too large, or in another format.
        OSError: no more files can be opened.
    """
    try:
        source = _open(path) if content is None else io.BytesIO(content)
        with source as file, warnings.catch_warnings(), Image.open(file, formats=FORMATS) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is stricter
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{path}: {image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
            if (frames := getattr(image, "n_frames", 1)) > 1:
                raise ImageError(f"{path}: an animation of {frames} frames; one image is expected")
            image.load()
            # Here and below nothing is called that has nothing to do: it would copy the image.
            return ImageOps.exif_transpose(image) if ORIENTATION in image.getexif() else image
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not a PNG, JPEG, WebP or BMP image") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{path}: more than {MAX_PIXELS:,} pixels") from None
    except ImageError:
        raise
    except (
        Exception
    ) as error:  # Pillow's parsers raise almost any on broken files, struct.error and TypeError among them
        if too_many_open(error):
            raise
        raise ImageError(f"{path}: broken image ({error})") from None


def _open(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except OSError as error:
        if too_many_open(error):
            raise
        raise ImageError(f"{path}: {error.strerror}") from None


def fit(image: Image.Image, image_shape: tuple[int, int, int], resize: Resize) -> NDArray[np.uint8]:
    """Turn an image into `uint8 [H, W, C]`: on black where it is transparent, and resized.

    Args:
        image_shape: (H, W, C); colour becomes grey where C is 1, and grey colour where it is 3.
        resize: `stretch` to the shape, or `crop` to its proportions first, around the middle.
    """
    height, width, channels = image_shape
    flat, mode = image, "L" if channels == 1 else "RGB"
    if image.mode.startswith("I") or image.has_transparency_data:
        flat = _flatten(image, mode)
    elif image.mode != mode:
        flat = image.convert(mode)
    if flat.size != (width, height):
        if resize == "crop":
            flat = ImageOps.fit(flat, (width, height), Image.Resampling.BILINEAR)
        else:
            flat = flat.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(flat, np.uint8).reshape(image_shape)


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    flat = Image.new(mode, image.size)
    for left, top in product(range(0, image.width, TILE), range(0, image.height, TILE)):
        right, bottom = min(left + TILE, image.width), min(top + TILE, image.height)
        flat.paste(_on_black(image.crop((left, top, right, bottom))).convert(mode), (left, top))
    return flat


def _on_black(tile: Image.Image) -> Image.Image:
    if tile.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip to 255 instead of scaling
        return Image.fromarray((np.asarray(tile) // 257).astype(np.uint8))
    tile = tile.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", tile.size, "black"), tile)
