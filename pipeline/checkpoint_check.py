"""A checkpoint's folder -> nothing, or the one line that says why it cannot be loaded.

Checking builds the model on no device, which takes torch: 210 MB of a driver's memory that it needs for nothing else.
So a child process checks, unless torch is here already.
"""

import os
import subprocess
import sys
from pathlib import Path


def check_checkpoint(folder: Path) -> None:
    """Raises ValueError, as `model.checkpoint.check` does."""
    if "torch" in sys.modules:
        _check(folder)
        return
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(folder)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 1 and done.stdout:
        raise ValueError(done.stdout.strip())
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        raise RuntimeError(f"{folder}: checking the checkpoint ended with status {done.returncode}: {last}")


def _check(folder: Path) -> None:
    from model import checkpoint  # not at the top: see above

    checkpoint.check(folder)


if __name__ == "__main__":
    try:
        _check(Path(sys.argv[1]))
    except ValueError as error:
        print(error)
        sys.exit(1)
