"""Read image files; encode and decode JPEG. Images are uint8 [H, W, 3], BGR, as in OpenCV."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from teachcam.decoder_messages import call_decoder
from teachcam.errors import UnreadableImage, UserError

MAX_JPEG_SIDE = 65500  # pixels, of libjpeg
JPEG_BEGIN = b"\xff\xd8"
FORMATS = ("PNG", "BMP", "PPM", "GIF", "WEBP", "TIFF")  # of Pillow, beside JPEG; a file may have another's suffix
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
NEED_CONVERSION = {".heic", ".heif", ".avif", ".gif", ".jp2", ".dng", ".cr2", ".nef", ".arw"}
VIDEO_SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".ts"}

warnings.filterwarnings("ignore", module="PIL")  # of damaged files, which they do not name


def is_image(path: Path) -> bool:
    """Return whether a path is a file with an image's suffix. Hidden files (half written ones, too) are not."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def visible_files(folder: Path) -> list[Path]:
    """Return the files in a folder and its subfolders in natural order, without hidden ones."""
    files: list[Path] = []
    seen = set()  # folders: links may lead in a circle
    for parent, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(parent))
        visible = [name for name in folders if not name.startswith(".")]
        folders[:] = [name for name in visible if os.path.realpath(Path(parent) / name) not in seen]
        files += [Path(parent) / name for name in names if not name.startswith(".")]
    return sorted(files, key=natural_key)


def describe_other_files(files: list[Path]) -> str:
    """Count the files that are not images by their suffix, in one line, as in "2 .heic (save them as JPEG)"."""
    others = [file for file in files if not is_image(file)]
    broken_links = sum(not file.exists() for file in others)
    counts = Counter(file.suffix.lower() for file in others if file.exists())
    remedies = {
        **dict.fromkeys(NEED_CONVERSION, " (save them as JPEG)"),
        **dict.fromkeys(VIDEO_SUFFIXES, " (record from them: teachcam capture --camera FILE)"),
    }
    kinds = [
        f"{count} {suffix or 'without a suffix'}{remedies.get(suffix, '')}" for suffix, count in sorted(counts.items())
    ]
    return ", ".join(kinds + ([f"{broken_links} broken links"] if broken_links else []))


def natural_key(path: Path) -> list[tuple[int, str, str]]:
    """Return a sort key that puts frame2 before frame10, in each folder of a path."""
    parts = [re.split(r"(\d+)", part) for part in path.parts]
    return [(int(text) if text.isdecimal() else -1, text.lower(), text) for part in parts for text in part]


def read_image(path: Path | str) -> np.ndarray:
    """Read an image file, rotated upright as its EXIF data says.

    Returns:
        uint8 [H, W, 3], BGR.

    Raises:
        UnreadableImage: The file is missing, empty, truncated or not an image.
    """
    return decode_file(read_file(path), path)


def read_file(path: Path | str) -> bytes:
    """Return the content of an image file. Raises UnreadableImage if it is missing or may not be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnreadableImage(f"{path}: {error.strerror}") from None


def decode_file(content: bytes, path: Path | str) -> np.ndarray:
    """Return the image in a file's content, as `read_image` does. The path is for messages."""
    if not content:
        raise UnreadableImage(f"{path}: empty file")
    if content[4:8] == b"ftyp":
        raise UnreadableImage(f"{path}: a HEIC or AVIF picture or a video, which can't be read: save it as JPEG")
    # Some OpenCV versions fill the missing part of a truncated file with gray, without an error.
    if content.startswith(JPEG_BEGIN) and not _is_whole_jpeg(content):
        raise UnreadableImage(f"{path}: truncated JPEG")
    try:
        return decode_image(content, str(path))
    except ValueError as error:
        raise UnreadableImage(f"{path}: {error}") from None


def decode_image(content: bytes, name: str | None = None) -> np.ndarray:
    """Return the image in the bytes of an image file, upright as its EXIF data says.

    What is transparent shows white, whatever color the file has beneath.

    Args:
        content: The bytes.
        name: The file or the camera that a warning names if a JPEG is damaged. None for no warning.

    Returns:
        uint8 [H, W, 3], BGR.

    Raises:
        ValueError: The bytes are no image file, or not all of one.
    """
    read = _read_jpeg if content.startswith(JPEG_BEGIN) else _read_other
    try:
        return call_decoder(lambda: read(content), name)
    except ImportError:
        raise
    except Exception as error:  # what Pillow raises for damaged files is of many kinds
        reason = "too many pixels" if type(error).__name__ == "DecompressionBombError" else "not a readable image"
        raise ValueError("truncated file" if "truncated" in str(error) else reason) from None


def _read_jpeg(content: bytes) -> np.ndarray:
    """Return the image in a JPEG. OpenCV takes two thirds of Pillow's time, and its decoder tells of damage."""
    silence_opencv()
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("not a JPEG")
    return image


def _read_other(content: bytes) -> np.ndarray:
    """Return the image in a file that is no JPEG, by Pillow: OpenCV's versions turn and blend them differently."""
    from PIL import Image, ImageOps  # takes 20 ms, which a live loop does not need

    with Image.open(io.BytesIO(content), formats=FORMATS) as file:
        picture = ImageOps.exif_transpose(file)
    if picture.mode == "F" or (picture.mode, file.format) == ("I", "TIFF"):
        raise ValueError("32 bits a color, and nothing says which value is white")
    if picture.mode.startswith("I"):  # gray, 16 bits
        return cv2.cvtColor((np.asarray(picture) >> 8).astype(np.uint8), cv2.COLOR_GRAY2BGR)
    if file.format != "BMP" and (picture.mode.endswith("A") or "transparency" in picture.info):
        white = Image.new("RGBA", picture.size, "white")  # many programs leave a BMP's alpha at zero
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return cv2.cvtColor(np.asarray(picture.convert("RGB")), cv2.COLOR_RGB2BGR)


def silence_opencv() -> None:
    """Keep OpenCV and FFmpeg from writing to stderr. Their failures are raised as errors, once."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # "quiet"
    if hasattr(cv2, "utils") and hasattr(cv2.utils, "logging"):  # older versions have neither
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def encode_jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    """Return the bytes of a JPEG file.

    Args:
        image: uint8 [H, W, 3], BGR.
        quality: 0 to 100. OpenCV's default is 95: no visible loss, about a tenth of the raw size.

    Raises:
        UserError: It is no such image, or too large for a JPEG.
    """
    check_image(image)
    if max(image.shape) > MAX_JPEG_SIDE:
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise UserError(f"an image of {size} is too large for a JPEG: scale it to {MAX_JPEG_SIDE} pixels a side")
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def check_image(image: np.ndarray) -> None:
    """Raise UserError if this is not an image as all functions here take it. Takes less than a microsecond."""
    is_array = isinstance(image, np.ndarray)
    if not (is_array and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size):
        given = f"{image.dtype} {list(image.shape)}" if is_array else f"of type {type(image).__name__}"
        raise UserError(f"an image must be uint8 [H, W, 3], BGR, as OpenCV reads it, and this is {given}")


def _is_whole_jpeg(content: bytes) -> bool:
    """Return whether an end marker follows the header, whose thumbnail has one, too. Some cameras append data."""
    from PIL.JpegImagePlugin import JpegImageFile  # takes 20 ms, which a live loop does not need

    file = io.BytesIO(content)
    try:
        JpegImageFile(file)  # reads up to the pixels
    except Exception:  # of many kinds, for a damaged header
        return False
    return content.find(b"\xff\xd9", file.tell()) > 0
