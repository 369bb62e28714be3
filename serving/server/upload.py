"""POST /predict: one image file, as the body or as a part of a form."""

from pathlib import Path
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serving.files import printable
from serving.images import ImageError
from serving.model import Predictor
from serving.server.refusal import Refusal

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

TYPES = "image/png, image/jpeg, image/webp, image/bmp or multipart/form-data"
PARTS = 8  # of a form


def image_file(body: bytes, content_type: str) -> bytes:
    """Return the image file that a body is, or the one that is a part of it.

    Raises:
        Refusal: there is none, or there are several.
    """
    kind, options = parse_options_header(content_type)
    if kind.startswith(b"image/"):
        return body
    if kind != b"multipart/form-data":
        raise Refusal(415, f"content-type is {content_type[:80]!r}; {TYPES} is expected")
    if not (boundary := options.get(b"boundary")):
        raise Refusal(400, "multipart/form-data without a boundary")
    form = _Form()
    try:
        parser = MultipartParser(boundary, form.callbacks())
        parser.write(body)
    except FormParserError as error:
        raise Refusal(400, f"the form cannot be read: {printable(str(error))}") from None
    if not form.whole:
        raise Refusal(400, "the form ends too early, or is none of that boundary")
    if len(form.files) != 1:
        raise Refusal(400, f"{len(form.files)} files in the form; one is expected, as by curl -F image=@FILE")
    return bytes(form.files[0])


class _Form:
    """The files in a form: its parts that have a file name."""

    def __init__(self) -> None:
        self.files: list[bytearray] = []
        self.whole = False
        self._parts = 0
        self._name, self._value = bytearray(), bytearray()
        self._file: bytearray | None = None

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._parts += 1
        self._file = None
        if self._parts > PARTS:
            raise Refusal(400, f"more than {PARTS} parts in the form")

    def _header(self) -> None:
        _, options = parse_options_header(bytes(self._value))
        if self._name.lower() == b"content-disposition" and b"filename" in options:
            self._file = bytearray()
            self.files.append(self._file)
        self._name.clear()
        self._value.clear()

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file += memoryview(data)[start:end]

    def _end(self) -> None:
        self.whole = True


def pixels(body: bytes, content_type: str, predictor: Predictor) -> bytes:
    """Decode the image file in a body as training did: `uint8 [H, W, C]`, in C order.

    Raises:
        Refusal: there is none that can be classified.
    """
    file = image_file(body, content_type)
    try:
        return predictor.image(Path("the image"), file).tobytes()
    except ImageError as error:
        raise Refusal(400, printable(str(error))) from None
