"""Read image files; encode and decode JPEG. Images are uint8 [H, W, 3], BGR, as in OpenCV."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from teachcam.decoder_messages import call_decoder
from teachcam.errors import UnreadableImage, UserError

WHITE = 255
MAX_JPEG_SIDE = 65500  # pixels, of libjpeg
# What every version of OpenCV reads.
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
NEED_CONVERSION = {".heic", ".heif", ".avif", ".gif", ".jp2", ".dng", ".cr2", ".nef", ".arw"}
VIDEO_SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".ts"}


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
    if content.startswith(b"\xff\xd8") and not _is_whole_jpeg(content):
        raise UnreadableImage(f"{path}: truncated JPEG")
    if content.startswith(b"\x89PNG") and b"IEND" not in content[-4096:]:
        raise UnreadableImage(f"{path}: truncated PNG")
    try:
        return decode_image(content, str(path))
    except (cv2.error, ValueError):  # cv2.error: the header promises more pixels than OpenCV allows
        raise UnreadableImage(f"{path}: not a readable image") from None


def decode_image(content: bytes, name: str | None = None) -> np.ndarray:
    """Return the image in the bytes of an image file, uint8 [H, W, 3] BGR. Raises ValueError for other bytes.

    What is transparent shows white, whatever color the file has beneath.

    Args:
        content: The bytes.
        name: The file or the camera that a warning names if the picture is damaged. None for no warning.
    """
    silence_opencv()
    buffer = np.frombuffer(content, np.uint8)
    image = call_decoder(lambda: cv2.imdecode(buffer, cv2.IMREAD_COLOR), name)
    if image is None:
        raise ValueError("not an image")
    if _may_be_transparent(content):
        channels = call_decoder(lambda: cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED), None)
        opacity = _opacity(content, channels, image)
        if opacity is not None:
            image = np.round(opacity * image + (1 - opacity) * WHITE).astype(np.uint8)
    return image


def _opacity(content: bytes, channels: np.ndarray | None, image: np.ndarray) -> np.ndarray | None:
    """Return how opaque each pixel of an image is, float32 [H, W, 1] from 0 to 1, or None if all are.

    Args:
        content: Content of the file.
        channels: The file's own channels, which OpenCV does not turn upright.
        image: The upright image, uint8 [H, W, 3], BGR.
    """
    gray_level = content.find(b"tRNS", 0, max(0, content.find(b"IDAT")))
    if content.startswith(b"\x89PNG") and content[24:26] == b"\x08\0" and gray_level > 0:  # 8 bits, gray
        return (image[:, :, :1] != content[gray_level + 5]).astype(np.float32)
    if channels is None or channels.ndim != 3 or channels.shape[2] not in (2, 4):
        return None
    full = np.float32({"uint8": 255, "uint16": 65535}.get(channels.dtype.name, 1))
    turned = [np.rot90(side, turns) for side in (channels, channels[:, ::-1]) for turns in range(4)]
    fitting = [one for one in turned if one.shape[:2] == image.shape[:2]]
    colors = channels.shape[2] - 1
    distance = [np.abs(one[:, :, :colors] * (255 / full) - image[:, :, :colors]).mean() for one in fitting]
    upright = fitting[int(np.argmin(distance))]
    return upright[:, :, -1:] / full


def _may_be_transparent(content: bytes) -> bool:
    """Return whether a file may have an alpha channel. A JPEG has none; a PNG names its kind of color in its header."""
    if content.startswith(b"\x89PNG"):
        return content[25] in (4, 6) or b"tRNS" in content[: content.find(b"IDAT")]
    return not content.startswith((b"\xff\xd8", b"BM"))


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
    """Walk the segments of a JPEG to its end marker. Some cameras append data after it, or embed a thumbnail."""
    position = 2
    while True:
        position = content.find(b"\xff", position)
        if position < 0 or position + 1 >= len(content):
            return False
        marker = content[position + 1]
        if marker == 0xD9:  # end of image
            return True
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD7:  # stuffed bytes and restart markers in pixel data
            position += 1 if marker == 0xFF else 2
        else:  # a segment, which states its length
            position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
