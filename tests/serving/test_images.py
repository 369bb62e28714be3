"""The one decoder: image files as the model wants them."""

import os
import socket
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serving import images
from serving.images import ImageError, decode, fit
from tests.support.exhausted import no_more_files
from tests.support.params import ROOT

SHAPE = (28, 28, 1)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


def save(pixels: np.ndarray, name: str = "image.png", **options: Any) -> Path:
    Image.fromarray(pixels.squeeze()).save(name, **options)
    return Path(name)


@pytest.fixture(autouse=True)
def in_workspace(workspace: Path) -> None:
    pass


def test_a_png_is_read_as_it_is(pixels: np.ndarray) -> None:
    assert np.array_equal(decode(save(pixels), SHAPE), pixels)


def test_colour_becomes_grey_and_grey_becomes_colour(pixels: np.ndarray) -> None:
    rgb = np.repeat(pixels, 3, axis=2)
    assert np.array_equal(decode(save(rgb), SHAPE), pixels)
    assert np.array_equal(decode(save(pixels), (28, 28, 3)), rgb)


def test_sixteen_bits_are_scaled_not_clipped(pixels: np.ndarray) -> None:
    assert np.array_equal(decode(save(pixels.astype(np.uint16) * 257), SHAPE), pixels)


def test_transparency_is_laid_on_black(pixels: np.ndarray) -> None:
    white = np.full((28, 28, 3), 255, np.uint8)
    assert np.array_equal(decode(save(np.concatenate((white, pixels), axis=2)), SHAPE), pixels)


def whole_on_black(image: Image.Image, mode: str) -> Image.Image:
    """Return what an image is that is laid on black in one piece."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8)).convert(mode)
    return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA")).convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "P, each its own", "RGB", "L", "1", "I;16", "I"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_laid_on_black_in_tiles_has_the_pixels_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, mode: str, channels: int
) -> None:
    monkeypatch.setattr(images, "TILE", 7)
    random = np.random.default_rng(0)
    if mode.startswith("I"):
        image = Image.fromarray(random.integers(0, 2**16, (20, 30)).astype(np.uint16 if ";" in mode else np.int32))
    else:
        image = Image.fromarray(random.integers(0, 256, (20, 30, 4), np.uint8)).convert(mode.partition(",")[0])
        if mode.startswith("P,"):
            image.info["transparency"] = bytes(range(256))
        elif mode in ("P", "L", "1", "RGB"):
            image.info["transparency"] = image.getpixel((3, 3))
    reference = whole_on_black(image, "L" if channels == 1 else "RGB")
    assert np.array_equal(fit(image, (20, 30, channels), "stretch").squeeze(), np.asarray(reference))
    smaller = np.asarray(reference.resize((9, 9), Image.Resampling.BILINEAR))
    assert np.array_equal(fit(image, (9, 9, channels), "stretch").squeeze(), smaller)


DECODES = """
from pathlib import Path
from serving.images import decode
from serving.probe import peak_memory
for name in ("image.png", "large.png"):
    decode(Path(name), (28, 28, 1))
    print(peak_memory())
"""


def test_a_large_transparent_image_is_in_memory_less_than_twice(pixels: np.ndarray) -> None:
    save(pixels)
    side = 4000
    Image.new("RGBA", (side, side), (9, 9, 9, 99)).save("large.png", compress_level=1)
    environment = {"PYTHONPATH": str(ROOT)}
    words = (sys.executable, "-c", DECODES)
    printed = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    before, after = map(int, printed.split())
    assert after - before < 2 * 4 * side**2


def test_a_larger_jpeg_is_resized(pixels: np.ndarray) -> None:
    large = np.kron(np.full((28, 28), 100, np.uint8), np.ones((10, 10), np.uint8))
    decoded = decode(save(large, "large.jpg", quality=95), SHAPE)
    assert decoded.shape == SHAPE
    assert np.all(np.abs(decoded.astype(int) - 100) <= 1)


def test_a_wide_image_is_cropped_around_its_middle_or_stretched() -> None:
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 200
    assert np.all(decode(save(wide), (10, 10, 1), "crop") == 200)
    stretched = decode(save(wide), (10, 10, 1), "stretch")[..., 0]
    assert stretched[:, 0].max() == 0
    assert stretched[:, 5].min() == 200


def test_exif_orientation_is_honoured(pixels: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    upright = decode(save(pixels, exif=exif), SHAPE)
    assert np.array_equal(upright[..., 0], np.rot90(pixels[..., 0], -1))


def png_of_size(png: Path, width: int, height: int) -> bytes:
    """Return a PNG file with another size in its header: making so many pixels takes seconds."""
    content = png.read_bytes()
    header = content[12:16] + width.to_bytes(4) + height.to_bytes(4) + content[24:29]
    return content[:12] + header + zlib.crc32(header).to_bytes(4) + content[33:]


def test_a_file_that_is_no_image_is_refused_with_the_reason(pixels: np.ndarray) -> None:
    whole = save(pixels)
    Path("truncated.png").write_bytes(whole.read_bytes()[:300])
    Path("text.png").write_text("no image")
    Path("empty.png").touch()
    Path("folder.png").mkdir()
    save(pixels, "format.gif")
    Path("large.png").write_bytes(png_of_size(whole, 10_000, 6000))
    Path("bomb.png").write_bytes(png_of_size(whole, 30_000, 30_000))
    frames = [Image.fromarray((pixels[..., 0] // n).astype(np.uint8)) for n in (1, 2)]
    frames[0].save("moving.png", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x011A: 72.5, 0x0131: "soft"})
    Image.new("L", (28, 28)).save("exif.jpg", exif=exif)
    damaged = bytearray(Path("exif.jpg").read_bytes())
    start = damaged.index(b"Exif")
    damaged[start + 29], damaged[start + 49] = 77, 64  # found by fuzzing: AttributeError in Pillow
    Path("exif.jpg").write_bytes(damaged)
    for name, reason in {
        "exif.jpg": "broken image",
        "missing.png": "no such file",
        "truncated.png": "broken image",
        "text.png": "not a PNG, JPEG, WebP or BMP image",
        "empty.png": "not a PNG, JPEG, WebP or BMP image",
        "folder.png": "Is a directory",
        "format.gif": "not a PNG, JPEG, WebP or BMP image",
        "large.png": "10000 x 6000 pixels are more than 50,000,000",
        "bomb.png": "more than 50,000,000",
        "moving.png": "an animation of 2 frames",
    }.items():
        with pytest.raises(ImageError, match=f"^{name}: .*{reason}"):
            decode(Path(name), SHAPE)


def test_what_is_no_regular_file_is_refused_without_waiting_for_it() -> None:
    os.mkfifo("fifo.png")
    Path("link.png").symlink_to("fifo.png")
    Path("device.png").symlink_to("/dev/zero")
    Path("loop.png").symlink_to("loop.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
    for name in ("fifo.png", "link.png", "device.png", "socket.png"):
        with pytest.raises(ImageError, match=f"^{name}: a FIFO, socket or device; a regular file is expected$"):
            decode(Path(name), SHAPE)
    with pytest.raises(ImageError, match=r"^loop.png: Too many levels of symbolic links$"):
        decode(Path("loop.png"), SHAPE)


def test_a_link_to_an_image_is_followed(pixels: np.ndarray) -> None:
    Path("link.png").symlink_to(save(pixels))
    assert np.array_equal(decode(Path("link.png"), SHAPE), pixels)


def test_a_file_that_becomes_a_fifo_after_the_look_at_it_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo("fifo.png")
    regular = Path(__file__).stat()
    monkeypatch.setattr(Path, "stat", lambda _: regular)
    with pytest.raises(ImageError, match="not a PNG, JPEG, WebP or BMP image"):
        decode(Path("fifo.png"), SHAPE)


def test_that_no_more_files_can_be_opened_is_no_fault_of_an_images(pixels: np.ndarray) -> None:
    path = save(pixels)
    with no_more_files(), pytest.raises(OSError, match="Too many open files"):
        decode(path, SHAPE)
