"""Read image files and encode JPEG. Images are uint8 [H, W, 3], BGR, as OpenCV gives them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from teachcam.errors import UnreadableImage

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def is_image(path: Path) -> bool:
    """Say whether a path's name is a picture's, and not one half written."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def read_image(path: Path | str) -> np.ndarray:
    """Read a picture as uint8 [H, W, 3], BGR, turned upright. Raises UnreadableImage, a truncated one included."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UnreadableImage(f"{path}: {error.strerror}") from None
    if not content:
        raise UnreadableImage(f"{path}: empty file")
    # Some OpenCV versions fill the missing part of a truncated file with gray and say nothing.
    if content.startswith(b"\xff\xd8") and not _is_whole_jpeg(content):
        raise UnreadableImage(f"{path}: truncated JPEG")
    if content.startswith(b"\x89PNG") and b"IEND" not in content[-4096:]:
        raise UnreadableImage(f"{path}: truncated PNG")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # a header that promises more pixels than OpenCV allows
        image = None
    if image is None:
        raise UnreadableImage(f"{path}: not a picture that can be read")
    return image


def _is_whole_jpeg(content: bytes) -> bool:
    """Walk a JPEG's segments to its end marker; what some cameras add behind it, or before it, is not looked at."""
    position = 2
    while True:
        position = content.find(b"\xff", position)
        if position < 0 or position + 1 >= len(content):
            return False
        marker = content[position + 1]
        if marker == 0xD9:
            return True
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD7:  # stuffing and restarts within the picture's data
            position += 1 if marker == 0xFF else 2
        else:
            position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
