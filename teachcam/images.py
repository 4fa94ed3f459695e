"""Read image files; encode and decode JPEG. Images are uint8 [H, W, 3], BGR, as in OpenCV."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from teachcam.errors import UnreadableImage

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def is_image(path: Path) -> bool:
    """Return whether a path is a file with an image's suffix. Hidden files (half written ones, too) are not."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


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
    # Some OpenCV versions fill the missing part of a truncated file with gray, without an error.
    if content.startswith(b"\xff\xd8") and not _is_whole_jpeg(content):
        raise UnreadableImage(f"{path}: truncated JPEG")
    if content.startswith(b"\x89PNG") and b"IEND" not in content[-4096:]:
        raise UnreadableImage(f"{path}: truncated PNG")
    try:
        return decode_image(content)
    except (cv2.error, ValueError):  # cv2.error: the header promises more pixels than OpenCV allows
        raise UnreadableImage(f"{path}: not a readable image") from None


def decode_image(content: bytes) -> np.ndarray:
    """Return the image in the bytes of an image file, uint8 [H, W, 3] BGR. Raises ValueError for other bytes."""
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("not an image")
    return image


def encode_jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    """Return the bytes of a JPEG file.

    Args:
        image: uint8 [H, W, 3], BGR.
        quality: 0 to 100. OpenCV's default is 95: no visible loss, about a tenth of the raw size.
    """
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


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
