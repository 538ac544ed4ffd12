"""Gives the parsers whatever atheris makes of good examples: `python tests/fuzzing/fuzz.py TARGET --seconds 60`.

Without a target it lists them. What a parser may raise is what it says it raises; anything else, an input that takes
too long, or one that takes too much memory, ends the run and is left in FOLDER. atheris is installed by `make fuzz`.
"""

import argparse
import contextlib
import logging
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
RSS_MB = 3000
SECONDS_AN_INPUT = 20


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("target", nargs="?")
    arguments.add_argument("--seconds", type=int, default=60)
    arguments.add_argument("--folder", type=Path, default=ROOT / "build" / "fuzz", help="Where a finding is left.")
    given = arguments.parse_args()
    if given.target is None:
        sys.path.insert(0, str(Path(__file__).parent))
        import targets

        print(*targets.TARGETS)
        return
    import atheris

    with atheris.instrument_imports(include=["shared", "client", "targets", "tomllib", "csv", "json"]):
        sys.path.insert(0, str(Path(__file__).parent))
        import targets
    target = targets.TARGETS[given.target]
    logging.disable(logging.CRITICAL)
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus, contextlib.ExitStack() as stack:
        for number, example in enumerate(target.examples()):
            (Path(corpus) / f"{number:03d}").write_bytes(example)
        stack.enter_context(target.room())
        options = [
            f"-max_total_time={given.seconds}",
            f"-rss_limit_mb={RSS_MB}",
            f"-timeout={SECONDS_AN_INPUT}",
            f"-max_len={target.longest}",
            f"-artifact_prefix={given.folder}/{given.target}-",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], corpus, *options], target.one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
