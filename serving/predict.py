"""Classify image files with the ONNX model alone.

Reads:  models/model.onnx (or --model), PNG and JPEG files
Run:    python -m serving.predict IMAGE...
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from serving.session import SessionError, open_session

MAX_PIXELS = 50_000_000
TOP = 3


class ImageError(Exception):
    """A file is not an image that can be classified."""


class Predictor:
    """models/model.onnx, ready to classify."""

    def __init__(self, model: Path, provider: str = "auto") -> None:
        """Open the model.

        Raises:
            SessionError: there is no such file, it is no model of this pipeline, or `provider` cannot run it.
        """
        if not model.is_file():
            raise SessionError(f"{model} does not exist: make run trains it, dvc checkout or dvc pull bring it back")
        self.session = open_session(model, provider)
        metadata = self.session.get_modelmeta().custom_metadata_map
        if "class_names" not in metadata:
            raise SessionError(f"{model} has no class names in its metadata: it was not exported by this pipeline")
        self.class_names: list[str] = json.loads(metadata["class_names"])
        _, height, width, channels = self.session.get_inputs()[0].shape
        self.image_shape: tuple[int, int, int] = (height, width, channels)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities, `float32 [N, classes]`, of images `uint8 [N, H, W, C]`."""
        (probabilities,) = self.session.run(["probabilities"], {"images": images})
        return np.asarray(probabilities)


def decode(path: Path, image_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Read a PNG or JPEG file as `uint8 [H, W, C]`: upright, on black where it is transparent, resized to fit.

    Raises:
        ImageError: the file is missing, broken, animated, too large, or in another format.
    """
    height, width, channels = image_shape
    try:
        with warnings.catch_warnings(), Image.open(path, formats=("PNG", "JPEG")) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is stricter
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{path}: {image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
            if (frames := getattr(image, "n_frames", 1)) > 1:
                raise ImageError(f"{path}: an animation of {frames} frames; one image is expected")
            upright = ImageOps.exif_transpose(image)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not a PNG or JPEG image") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{path}: more than {MAX_PIXELS:,} pixels") from None
    except (IsADirectoryError, PermissionError) as error:
        raise ImageError(f"{path}: {error.strerror}") from None
    except ImageError:
        raise
    except (
        Exception
    ) as error:  # Pillow's parsers raise almost any on broken files, struct.error and TypeError among them
        raise ImageError(f"{path}: broken image ({error})") from None
    flat = _flatten(upright).convert("L" if channels == 1 else "RGB")
    if flat.size != (width, height):
        flat = flat.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(flat, np.uint8).reshape(image_shape)


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip to 255 instead of scaling
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    return image


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m serving.predict", description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="a PNG or JPEG file")
    parser.add_argument("--model", type=Path, default=Path("models/model.onnx"))
    parser.add_argument("--provider", default="auto", help="ONNX Runtime's execution provider (default: auto)")
    arguments = parser.parse_args()
    try:
        predictor = Predictor(arguments.model, arguments.provider)
    except SessionError as error:
        sys.exit(f"predict: {error}")

    failed = 0
    for path in arguments.images:
        try:
            image = decode(path, predictor.image_shape)
        except ImageError as error:
            print(f"predict: {error}", file=sys.stderr)
            failed += 1
            continue
        (probabilities,) = predictor(image[np.newaxis])
        best = [f"{predictor.class_names[k]} {probabilities[k]:.1%}" for k in np.argsort(-probabilities)[:TOP]]
        print(f"{path}: {best[0]}  (then {', '.join(best[1:])})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
