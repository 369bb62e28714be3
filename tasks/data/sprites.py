"""CIFAR-10 as a mirror may have it: the images of a batch in one picture, row by row, and all labels in another file.

`batch` makes of them what the publisher's binary version has, so that its checksums verify them.
"""

from pathlib import Path

import numpy as np
from PIL import features

from serving import images
from serving.images import ImageError
from tasks.data.datasets import CIFAR_ROW, Archive

SIDE = 32  # pixels of an image


class SpriteError(Exception):
    """A sprite and its labels are no batch."""


def batch(archive: Archive, sprite: bytes, labels: bytes) -> bytes:
    """Write as the publisher does: for each image its label, and 1,024 bytes each of red, green and blue.

    Args:
        sprite: the contents of an image file, as long as nobody has seen to it that it is one.
        labels: of all batches, a byte each, as many as there are images.

    Raises:
        SpriteError: the sprite is no image, is one of another size, or this Pillow cannot read it.
    """
    if not features.check("webp"):
        raise SpriteError("this Pillow is built without WebP: install the one that requirements.txt names")
    try:
        picture = images.read(Path(archive.sprite), sprite).convert("RGB")
    except ImageError as error:
        raise SpriteError(str(error).removeprefix(f"{archive.sprite}: ")) from None
    count = archive.size // CIFAR_ROW
    across, down = picture.width // SIDE, picture.height // SIDE
    if across * down != count or picture.size != (across * SIDE, down * SIDE):
        raise SpriteError(
            f"{picture.width} x {picture.height} pixels are not {count:,} images of {SIDE} x {SIDE} in rows"
        )
    own = np.frombuffer(labels, np.uint8)[archive.first_label :][:count]
    grid = np.asarray(picture).reshape(down, SIDE, across, SIDE, 3)
    planes = grid.transpose(0, 2, 4, 1, 3).reshape(count, -1)
    return np.concatenate([own[:, None], planes], axis=1).tobytes()
