"""What libjpeg and libtiff print: nothing of a whole picture, and one warning with a name of a damaged one."""

from __future__ import annotations

import ctypes
import struct
import sys
import threading
import zlib

import cv2
import numpy as np
import pytest

from teachcam.collect.synthetic import render
from teachcam.decoder_messages import call_decoder
from teachcam.errors import UnreadableImage
from teachcam.images import decode_file, decode_image, encode_jpeg

IMAGE = render("palm", 3, 1, 320, 240)[0]
JPEG = encode_jpeg(IMAGE)
PADDED = JPEG[:-2] + b"\x12" * 20 + b"\xff\xd9"  # as many webcams send it
DAMAGED = JPEG[: len(JPEG) // 2] + b"\xff\xd9"
PNG = cv2.imencode(".png", IMAGE)[1].tobytes()
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="C's stderr is a variable in glibc only")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def print_in_c(text: bytes) -> None:
    """Print as other C code does."""
    libc = ctypes.CDLL(None)
    libc.fputs(text, ctypes.c_void_p.in_dll(libc, "stderr"))


def test_the_pictures_do_make_their_decoder_print(capfd):
    for content in (PADDED, DAMAGED):
        cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert "Corrupt JPEG data" in capfd.readouterr().err


def test_a_whole_picture_is_silent(capfd):
    profile = PNG[:33] + chunk(b"iCCP", b"x\0\0" + zlib.compress(b"a" * 200)) + PNG[33:]
    for content in (JPEG, PADDED, JPEG + b"more", profile):
        assert decode_file(content, "whole.jpg").shape == IMAGE.shape
    assert capfd.readouterr().err == ""


def test_a_damaged_picture_is_one_warning_with_its_name(capfd):
    for _ in range(3):
        decode_file(DAMAGED, "shelf/half.jpg")
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "warning: shelf/half.jpg: a damaged picture (Corrupt JPEG data: premature end of data segment)" in said
    decode_image(DAMAGED)
    for content in (PNG[:2000] + PNG[-12:], PNG[:2000] + b"x" + PNG[2001:]):
        with pytest.raises(UnreadableImage):
            decode_file(content, "bad.png")
    assert capfd.readouterr().err == ""


def test_messages_of_others_are_passed_on(capfd):
    def decode():
        print_in_c(b"of another library\n")
        print("of Python", file=sys.stderr)
        return decode_image(PADDED)

    assert call_decoder(decode, "x").shape == IMAGE.shape
    print_in_c(b"afterwards\n")
    assert sorted(capfd.readouterr().err.splitlines()) == ["afterwards", "of Python", "of another library"]


def test_a_decoder_that_raises_leaves_stderr_as_it_was(capfd):
    with pytest.raises(ZeroDivisionError):
        call_decoder(lambda: 1 / 0, "x")
    print_in_c(b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"


def test_the_damaged_one_of_many_threads_is_named(capfd):
    def decode(number: int) -> None:
        for _ in range(20):
            decode_file(DAMAGED if number == 2 else PADDED, f"camera {number} of several")

    threads = [threading.Thread(target=decode, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "camera 2 of several" in said
