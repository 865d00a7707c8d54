"""A decoding process that does what the file it gets tells it to: what hostile images make decoders do, on demand.

A file is a word, or a word and an argument after a colon. Everything else is decoded as usual.
"""

import ctypes
import dataclasses
import os
import resource
import signal
import stat
from collections.abc import Sequence

from pipeline.decode_child import DecodeSettings, PreparedImage, prepare_image, run
from schemas.rows import Mark
from tests.pipeline.pictures import encode, four_corners

_PICTURE = encode(four_corners(), "PNG")


def misbehave(encoded: bytes, settings: DecodeSettings, dynamic: bool, marks: Sequence[Mark]) -> PreparedImage:
    word, _, argument = encoded.partition(b":")
    match word:
        case b"segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case b"killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case b"exit":
            os._exit(3)
        case b"raise":
            raise RuntimeError("no decoder is allowed to raise this")
        case b"hang":
            ctypes.PyDLL(None).sleep(3600)  # a decoder in C, which does not let go of the interpreter's lock
        case b"memory":
            bytearray(settings.memory_mb * 1024**2)
        case b"nonsense":
            os.write(_channel(), b"\xff" * 1000)
        case b"lie":
            prepared = prepare_image(_PICTURE, settings)
            return dataclasses.replace(prepared, grid=(9, 9))
        case b"lie of metadata":
            return dataclasses.replace(prepare_image(_PICTURE, settings), metadata=(("camera", "<|User|>"),))
        case b"lie of marks":
            return dataclasses.replace(prepare_image(_PICTURE, settings), marked_grids=((1, 1),))
        case b"endless":
            while True:
                os.write(_channel(), b"\0\0\xff\xff" + b" " * 65_535)
        case b"print":
            for stream in (1, 2):
                os.write(stream, b"Corrupt data: " * 10_000)
            assert os.read(0, 9) == b""
        case b"crash once":
            try:
                os.mkdir(argument)
                os.abort()
            except FileExistsError:
                pass
        case b"describe":
            return _described(settings)
        case _:
            return prepare_image(encoded, settings, dynamic, marks)
    return prepare_image(_PICTURE, settings)


def _channel() -> int:
    """What a decoder that was taken over would look for."""
    return next(fd for fd in range(3, 16) if stat.S_ISSOCK(os.fstat(fd).st_mode))


def _described(settings: DecodeSettings) -> PreparedImage:
    """This process, in the flags of an image."""
    limits = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in ("AS", "CORE", "FSIZE")}
    flags = (f"pid={os.getpid()}", f"limits={limits}", *os.environ)
    return dataclasses.replace(prepare_image(_PICTURE, settings), flags=flags)


if __name__ == "__main__":
    run(misbehave)
