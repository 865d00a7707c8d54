"""`python -m model.bench`: the bench on a machine that has torch, but nothing of Ray or of the `labelmill` command."""

import argparse
from pathlib import Path

from model.bench.report import print_report
from model.bench.settings import BenchSettings


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m model.bench", description="As `labelmill bench`; see its --help.")
    parser.add_argument("--checkpoint", "--model")
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    for name in ("batch", "output-tokens", "repeats"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--max-memory-gb", type=float)
    parser.add_argument("--json", dest="json_path", type=Path)
    parser.add_argument("--profile", dest="profile_folder", type=Path)
    try:
        settings = BenchSettings.with_defaults(**vars(parser.parse_args()))
    except ValueError as error:
        parser.error(str(error))
    print_report(settings)


if __name__ == "__main__":
    main()
