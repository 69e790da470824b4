"""Looks for bytes that break an invariant of `tests/fuzz_targets.py`, guided by coverage: `make fuzz`.

Each target runs for `--seconds` in a process of its own, from the inputs in `tests/fuzz_corpus`.
What was found to reach new code is merged, and the smallest inputs that reach all of it replace
those files; so the tests replay them. An input that breaks an invariant is kept there as well, as
`finding-*`, and the exit code is 1. What it prints is a line a target.

It needs atheris, which has wheels for Linux on x86-64.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

CORPUS = Path(__file__).parent / "fuzz_corpus"
LINEAR_EVERY = 64
"""Counting work is slow: it is done for one input in so many."""
KEPT_BYTES = 1024
KEPT_FILES = 100
"""Of each target, the smallest first: the corpus is for people and for `make test`, too."""
FLAGS = ("-max_len=4096", "-timeout=30", "-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=1")


def child(name: str, flags: Sequence[str]) -> None:
    """Fuzz one target in this process; does not return."""
    import atheris  # noqa: PLC0415  # not installed for `make test`

    from tests import fuzz_targets  # noqa: PLC0415  # only to learn the modules

    modules = fuzz_targets.TARGETS[name].modules
    # Those modules, and all that holds their names, anew and instrumented.
    for loaded in [each for each in sys.modules if each.split(".")[0] == "exporter"]:
        del sys.modules[loaded]
    del sys.modules["tests.fuzz_targets"]
    import tests  # noqa: PLC0415

    del tests.fuzz_targets
    with atheris.instrument_imports(include=list(modules)):
        from tests import fuzz_targets as instrumented  # noqa: PLC0415
    target = instrumented.TARGETS[name]

    def one(data: bytes) -> None:
        target.check(data)
        if zlib.crc32(data) % LINEAR_EVERY == 0:
            instrumented.check_linear(target, data)

    # To merge, libFuzzer starts its first argument again, through a shell.
    again = shlex.join([sys.executable, "-m", "tests.fuzz_run", "--child", name, "--"])
    atheris.Setup([again, *flags], one)
    atheris.Fuzz()


def fuzz(name: str, seconds: int, seed: int) -> bool:
    """Fuzz one target, keep its corpus, say what was reached; return whether nothing was found."""
    kept = CORPUS / name
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        grown, merged, crashes = (Path(place) / each for each in ("grown", "merged", "crashes"))
        for each in (grown, merged, crashes):
            each.mkdir()
        flags = [*FLAGS, f"-seed={seed}", f"-max_total_time={seconds}", f"-artifact_prefix={crashes}/"]
        said = _run(name, [*flags, str(grown), str(kept)])
        _run(name, [*FLAGS, "-merge=1", str(merged), str(kept), str(grown)])
        findings = sorted(crashes.iterdir())
        _keep(merged, kept)
        for number, crash in enumerate(findings):
            shutil.copy(crash, kept / f"finding-{number}")
    executions = re.findall(r"stat::number_of_executed_units: (\d+)", said)
    reached = re.findall(r"cov: (\d+) ft: (\d+)", said)
    edges, features = reached[-1] if reached else ("0", "0")
    print(
        f"{name:15} {int(executions[-1]) if executions else 0:>10,} executions in {seconds} s, seed {seed},"
        f" {edges} branches and {features} features reached,"
        f" {len(list(kept.iterdir()))} inputs kept, {len(findings)} findings",
        flush=True,
    )
    if findings:
        print("\n".join(said.splitlines()[-60:]))
    return not findings


def _run(name: str, flags: Sequence[str]) -> str:
    command = [sys.executable, "-m", "tests.fuzz_run", "--child", name, "--", *flags]
    environ = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environ, check=False)
    return done.stdout.decode("utf-8", "replace")


def _keep(merged: Path, kept: Path) -> None:
    """Replace the inputs that are kept by the smallest ones of those that were merged."""
    small = sorted(merged.iterdir(), key=lambda path: (path.stat().st_size, path.name))
    small = [path for path in small if path.stat().st_size <= KEPT_BYTES][:KEPT_FILES]
    if not small:
        return
    for old in kept.iterdir():
        if not old.name.startswith(("seed-", "finding-")):
            old.unlink()
    for path in small:
        shutil.copy(path, kept / path.name[:12])


def main() -> int:
    """Fuzz the targets one after the other."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("targets", nargs="*", help="all, if none is named")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 1 << 31))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(chosen.child, chosen.targets)
    names = chosen.targets or sorted(path.name for path in CORPUS.iterdir())
    are_clean = [fuzz(name, chosen.seconds, chosen.seed) for name in names]
    return 0 if all(are_clean) else 1


if __name__ == "__main__":
    sys.exit(main())
