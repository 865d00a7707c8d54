"""Our C, where it was built when the package was installed; every part of it has a twin that needs none.

Libraries without anything of Python's in them, called by ctypes: that releases the GIL, and takes a C compiler alone.
"""

import ctypes
import importlib.machinery
from pathlib import Path


def load(name: str, *, beside: str) -> ctypes.CDLL | None:
    """The library `name` in the folder of the file `beside`; None where there is none, as without a compiler."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(beside).with_name(name + suffix)
        if path.exists():
            return ctypes.CDLL(str(path))
    return None


def has_symbol(name: str) -> bool:
    """Whether a library that this process has loaded for all to see has it."""
    return hasattr(ctypes.CDLL(None), name)
