"""Image files of every kind: read with the right pixels, upright and on white, or refused in one line."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from teachcam.errors import UnreadableImage
from teachcam.images import decode_file

RNG = np.random.default_rng(0)
COLOR, DEEP = RNG.integers(0, 256, (20, 30, 3), np.uint8), RNG.integers(0, 65536, (20, 30, 3), np.uint16)
ALPHA = RNG.integers(0, 256, (20, 30), np.uint8)
GRAY = COLOR[:, :, 0]
LOSSLESS = [cv2.IMWRITE_WEBP_QUALITY, 101]


def on_white(image: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Return an image [H, W, 3] or [H, W] over white, float64 [H, W, 3] BGR. The opacity [H, W] is from 0 to 1."""
    return np.dstack([image] * (5 - image.ndim))[:, :, :3] * opacity[:, :, None] + 255 * (1 - opacity[:, :, None])


def saved(image: np.ndarray | Image.Image, format: str, **options: object) -> bytes:
    """Return a file that Pillow writes. An array is RGB or gray."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, format, **options)
    return file.getvalue()


def orientation(number: int) -> dict[str, object]:
    """Return Pillow's option for a file whose EXIF data has this orientation."""
    exif = Image.Exif()
    exif[0x0112] = number
    return {"exif": exif}


def assert_reads(content: bytes, expected: np.ndarray) -> None:
    """Compare with the right pixels, float or uint8 [H, W, 3], BGR."""
    image = decode_file(content, "x")
    assert (image.dtype, image.shape, image.flags.c_contiguous) == (np.uint8, expected.shape, True)
    assert np.abs(image - expected.astype(float)).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "tiff", "ppm"])
def test_color_and_gray_are_read_as_they_were_written(suffix):
    assert_reads(cv2.imencode(f".{suffix}", COLOR, LOSSLESS * (suffix == "webp"))[1].tobytes(), COLOR)
    if suffix not in ("webp", "ppm"):
        assert_reads(cv2.imencode(f".{suffix}", GRAY)[1].tobytes(), np.dstack([GRAY] * 3))


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bits_become_eight(suffix):
    assert_reads(cv2.imencode(f".{suffix}", DEEP[:, :, 0])[1].tobytes(), np.dstack([DEEP[:, :, 0]] * 3) / 257)
    color = "ppm" if suffix == "pgm" else suffix
    assert_reads(cv2.imencode(f".{color}", DEEP)[1].tobytes(), DEEP / 257)


def test_what_is_no_plain_rgb():
    assert_reads(b"P5 30 20 100\n" + (GRAY % 101).tobytes(), np.dstack([GRAY % 101 * 2.55] * 3))
    picture = Image.fromarray(COLOR[:, :, ::-1].copy())
    palette = picture.quantize(16)
    for kind in ("PNG", "BMP", "TIFF"):
        assert_reads(saved(palette, kind), np.asarray(palette.convert("RGB"))[:, :, ::-1])
        assert_reads(saved(Image.fromarray(GRAY > 99), kind), np.dstack([(GRAY > 99) * 255] * 3))
    for kind in ("JPEG", "TIFF"):
        cmyk = Image.new("CMYK", (30, 20), (0, 128, 255, 51))
        assert_reads(saved(cmyk, kind), np.full((20, 30, 3), (0, 102, 204)))


def test_a_color_that_stands_for_transparent_is_white():
    clear = {int(GRAY[3, 4]): GRAY[3, 4] == GRAY, 9: GRAY == 9}
    for level, where in clear.items():
        assert_reads(saved(GRAY, "PNG", transparency=level), on_white(GRAY, ~where))
    clear = tuple(int(level) for level in COLOR[3, 4, ::-1])
    content = saved(COLOR[:, :, ::-1].copy(), "PNG", transparency=clear)
    assert_reads(content, on_white(COLOR, (COLOR[3, 4] != COLOR).any(axis=2)))
    palette = Image.fromarray(GRAY % 2 * 255).quantize(2)
    opacity = np.float64([0.2, 1])[np.asarray(palette)]
    shown = np.asarray(palette.convert("RGB"))[:, :, ::-1]
    assert_reads(saved(palette, "PNG", transparency=b"\x33\xff"), on_white(shown, opacity))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("number", range(1, 9))
def test_every_orientation_is_turned_upright_with_its_transparency(kind, number):
    stored = on_white(COLOR, ALPHA / 255)
    upright = [lambda x: x, np.fliplr, lambda x: np.rot90(x, 2), np.flipud, lambda x: x.swapaxes(0, 1),
               lambda x: np.rot90(x, -1), lambda x: np.rot90(x, 2).swapaxes(0, 1), np.rot90][number - 1]  # fmt: skip
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    content = saved(np.dstack([COLOR[:, :, ::-1], ALPHA]), kind, **orientation(number), **options)
    assert_reads(content, upright(stored))
    gray = saved(GRAY, "JPEG", **orientation(number), quality=100)
    assert np.abs(decode_file(gray, "x")[:, :, 0] - upright(GRAY).astype(float)).max() < 6


def test_the_alpha_of_a_bmp_is_ignored():
    assert_reads(cv2.imencode(".bmp", np.dstack([COLOR, ALPHA * 0]))[1].tobytes(), COLOR)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"a text", "not a readable image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a readable image"),
        (b"\0\0\0 ftypheic", "save it as JPEG"),
        (saved(GRAY.astype(np.float32), "TIFF"), "not a readable image"),
        (saved(GRAY.astype(np.int32), "TIFF"), "not a readable image"),
        *((saved(COLOR, kind)[:-300], "truncated") for kind in ("JPEG", "PNG", "BMP", "PPM")),
        (saved(COLOR, "JPEG")[:-1], "truncated JPEG"),
        (saved(COLOR, "WEBP")[:-300], "not a readable image"),
        (saved(COLOR, "TIFF", compression="tiff_lzw")[:-1500], "x: "),
    ],
)
def test_what_is_no_whole_image_is_refused_in_one_line(content, reason, capfd):
    with pytest.raises(UnreadableImage, match=reason) as error:
        decode_file(content, "x")
    assert str(error.value).count("\n") == 0
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("side", [20_000, 2**31 - 1])
def test_a_header_that_promises_too_much_is_refused(side):
    content = bytearray(saved(COLOR, "PNG"))
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    with pytest.raises(UnreadableImage, match="x: too many pixels"):
        decode_file(bytes(content), "x")
