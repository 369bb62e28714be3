"""An image file comes as a body or in a form; what is none, or a trap, is refused in one sentence."""

import io
import struct
import time
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.wire import Answer, ask, request

LIMITS = {"upload": 4 * 2**20}
BOUNDARY = "x-boundary"
FORM = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"


def image(kind: str = "PNG", size: tuple[int, int] = (4, 4), mode: str = "L") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 255 if mode == "L" else "white").save(file, kind)
    return file.getvalue()


def part(content: bytes, disposition: str = 'form-data; name="image"; filename="a.png"', *headers: str) -> bytes:
    lines = [f"--{BOUNDARY}", f"Content-Disposition: {disposition}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
FILE = part(image())


def sent(url: str, body: bytes, kind: str = "Content-Type: image/png") -> Answer:
    return ask(url, request("/predict", body, kind))


def refusal(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.error


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_an_image_file_is_classified_whatever_it_is_called(unharmed: str, kind: str) -> None:
    for said in ("image/png", "image/*", "IMAGE/JPEG; q=1"):
        answer = sent(unharmed, image(kind, (40, 30)), f"Content-Type: {said}")
        assert (answer.status, b'"label": "light"' in answer.body) == (200, True)


@pytest.mark.parametrize(
    "name",
    [
        "a.png",
        "",
        "/dev/zero",
        "../../../../etc/passwd",
        "file:///etc/passwd",
        "http://127.0.0.1/a.png",
        "fifo|",
        "a" * 3000,
        "\\x00.svg",
        "%00",
        "größe.png",
    ],
)
def test_the_name_of_a_file_opens_nothing(unharmed: str, name: str) -> None:
    answer = sent(unharmed, part(image(), f'form-data; name="image"; filename="{name}"') + END, FORM)
    assert (answer.status, b'"label": "light"' in answer.body) == (200, True)


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (b"", 400, "the form ends too early, or is none of that boundary"),
        (FILE, 400, "the form ends too early, or is none of that boundary"),
        (FILE + END[:-4], 400, "the form ends too early, or is none of that boundary"),
        (END, 400, "0 files in the form; one is expected, as by curl -F image=@FILE"),
        (part(b"a", 'form-data; name="image"') + END, 400, "0 files in the form; one is expected"),
        (FILE * 2 + END, 400, "2 files in the form; one is expected, as by curl -F image=@FILE"),
        (part(b"", 'form-data; name="a"') * 10_000 + END, 400, "more than 8 parts in the form"),
        (FILE * 10_000 + END, 400, "more than 8 parts in the form"),
        (part(b"", "form-data", "A: " + "a" * 2**21) + END, 400, "the form cannot be read: "),
        (part(b"", "form-data", *["A: b"] * 100_000) + END, 400, "the form cannot be read: "),
        (part(b"", "form-data", "A" * 2**21) + END, 400, "the form cannot be read: "),
        (part(b"", "form-data; filename*=UTF-8''%ff%ff") + END, 400, ""),
        (part(b"", "form-data; filename*=nonsense''a%20b") + END, 400, ""),
        (part(b"", "form-data; filename*0*=a; filename*1=b") + END, 400, ""),
        (part(b"", 'form-data; filename="' + '\\"' * 1000) + END, 400, ""),
        (f"--{BOUNDARY}\r\n\r\n\r\n--{BOUNDARY}--\r\n".encode(), 400, "0 files in the form"),
        (b"--other\r\n" + FILE + END, 400, "the form cannot be read: "),
        (f"--{BOUNDARY}".encode() * 100_000, 400, "0 files"),
        (f"\r\n--{BOUNDARY[:-1]}".encode() * 200_000, 400, ""),
        (part((f"\r\n--{BOUNDARY[:-1]}".encode()) * 200_000) + END, 400, "the image: not a PNG"),
        (b"\r\n" * 2**20, 400, ""),
        (FILE + END + b"a" * 2**20, 200, ""),
        (b"\x00" * 2**20, 400, "the form cannot be read: "),
    ],
    ids=[
        "nothing",
        "no end",
        "half an end",
        "end alone",
        "no file",
        "two files",
        "parts",
        "files",
        "one header",
        "headers",
        "header name",
        "no UTF-8",
        "no encoding",
        "in pieces",
        "quotes",
        "no headers",
        "other boundary",
        "boundaries",
        "almost boundaries",
        "a file of almost boundaries",
        "empty lines",
        "bytes after the end",
        "zeros",
    ],
)  # fmt: skip
def test_a_form_without_one_file_is_refused_in_time(unharmed: str, body: bytes, status: int, why: str) -> None:
    began = time.monotonic()
    answer = sent(unharmed, body, FORM)
    assert answer.status == status
    assert status == 200 or answer.error.startswith(why)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ("multipart/form-data; boundary=" + "a" * 20_000, 400),
        ("multipart/form-data; boundary*=nonsense''%ff", 400),
        ("multipart/form-data; boundary*=utf-8''%ff", 400),
        ('multipart/form-data; boundary="', 400),
        ("multipart/form-data; boundary=\xff\xfe", 400),
        ("multipart/form-data; " + "a=b; " * 5000, 400),
        ("multipart/mixed; boundary=a", 415),
        ("application/x-www-form-urlencoded", 415),
        ("text/plain", 415),
        ("", 415),
        (";", 415),
        ("\xff", 415),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_kind_of_body_that_is_not_known_is_refused(unharmed: str, kind: str, status: int) -> None:
    answer = sent(unharmed, FILE + END, f"Content-Type: {kind}")
    assert (answer.status, len(answer.error) < 250) == (status, True)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)) + b"".join(chunks)
    )


def animation(kind: str) -> bytes:
    frames = [Image.new("L", (4, 4), value) for value in (0, 255)]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (png(60_000, 60_000, chunk(b"IDAT", zlib.compress(bytes(1000)))), "the image: more than 50,000,000 pixels"),
        (png(10_000, 6_000, chunk(b"IDAT", zlib.compress(bytes(1000)))), "the image: 10000 x 6000 pixels are more"),
        (png(2**31 - 1, 2**31 - 1), "the image: "),
        (png(0, 0), "the image: "),
        (png(4, 4, chunk(b"IDAT", b"nonsense")), "the image: broken image"),
        (png(4, 4, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**27)))), "the image: "),
        (png(4, 4, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**27)))), "the image: "),
        (image()[:-30], "the image: broken image"),
        (image("JPEG", (64, 64))[:300], "the image: broken image"),
        (b"", "the image: not a PNG, JPEG, WebP or BMP image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "the image: not a PNG, JPEG, WebP or BMP image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "the image: not a PNG, JPEG, WebP or BMP image"),
        (image("TIFF"), "the image: not a PNG, JPEG, WebP or BMP image"),
        (image("GIF"), "the image: not a PNG, JPEG, WebP or BMP image"),
        (animation("PNG"), "the image: an animation of 2 frames; one image is expected"),
        (animation("WEBP"), "the image: an animation of 2 frames; one image is expected"),
    ],
    ids=[
        "60,000 x 60,000",
        "10,000 x 6,000",
        "2^62 pixels",
        "no pixels",
        "no data",
        "text bomb",
        "profile bomb",
        "cut off",
        "JPEG cut off",
        "nothing",
        "SVG",
        "EPS",
        "TIFF",
        "GIF",
        "APNG",
        "animated WebP",
    ],
)  # fmt: skip
def test_a_file_that_is_no_image_to_classify_is_refused(unharmed: str, body: bytes, why: str) -> None:
    began = time.monotonic()
    status, said = refusal(sent(unharmed, body))
    assert (status, said[: len(why)], len(said) < 250) == (400, why, True)
    assert time.monotonic() - began < 5


def test_the_largest_image_is_classified_and_given_back_to_the_system(unharmed: str) -> None:
    answer = sent(unharmed, image("PNG", (7000, 7000)))
    assert (answer.status, b'"label": "light"' in answer.body) == (200, True)


def test_an_upload_that_is_too_large_is_refused(unharmed: str) -> None:
    assert refusal(sent(unharmed, bytes(2**22 + 1))) == (413, "the body has more than 4,194,304 bytes")


WHOLE = [image(kind, (9, 7), "RGB") for kind in ("PNG", "JPEG", "WEBP", "BMP")]


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(WHOLE), st.floats(0, 1), st.binary(max_size=8), st.integers(0, 8))
def test_whatever_bytes_an_image_is_spoilt_with_are_answered(
    unharmed: str, whole: bytes, place: float, instead: bytes, removed: int
) -> None:
    start = int(place * len(whole))
    answer = sent(unharmed, whole[:start] + instead + whole[start + removed :])
    assert answer.status in (200, 400)
    assert answer.status == 200 or answer.error


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(FILE + END)), st.binary(max_size=8), st.integers(0, 8))
def test_whatever_bytes_a_form_is_spoilt_with_are_answered(
    unharmed: str, start: int, instead: bytes, removed: int
) -> None:
    body = FILE + END
    answer = sent(unharmed, body[:start] + instead + body[start + removed :], FORM)
    assert answer.status in (200, 400)
    assert answer.status == 200 or answer.error
