"""Property tests of the reader and the parser with many more examples than `make test` has, and a seed that is told.

A failure prints the test, its seed and the smallest input; `make fuzz FUZZ_FLAGS="--seed N"` repeats it.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from collections.abc import Callable

from hypothesis import HealthCheck, seed, settings

from tests import test_choice, test_continuation, test_parse, test_redact

PROPERTIES: list[Callable[[], None]] = [
    test_choice.test_every_situation_has_an_answer,
    test_continuation.test_no_text_is_a_record,
    test_parse.test_any_bytes,
    test_parse.test_batches,
    test_redact.test_a_secret_named_in_one_argument_and_given_in_another,
    test_redact.test_fast_test_is_safe,
    test_redact.test_idempotent,
    test_redact.test_no_encoding_of_a_url_hides_credentials,
    test_redact.test_no_quoting_hides_a_secret,
    test_redact.test_no_url_keeps_credentials,
    test_redact.test_no_userinfo_survives,
]


def one_round(number: int, examples: int) -> int:
    """Run every property once; a process can give each its seed once."""
    failed = 0
    for one in PROPERTIES:
        begin = time.monotonic()
        limits = settings(
            max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        try:
            limits(seed(number)(one))()
        except AssertionError as error:
            failed += 1
            notes = "\n".join(getattr(error, "__notes__", ()))
            print(f"FAILED {one.__name__}, seed {number}: {error}\n{notes}", flush=True)
        else:
            print(f"{one.__name__}, seed {number}: {time.monotonic() - begin:.1f} s", flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--examples", type=int, default=2000, help="of each property, in each round")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument(
        "--rounds", type=int, default=0, help="stop after so many (default: at the end of the time)"
    )
    given = parser.parse_args()
    if given.rounds == 1:
        return min(1, one_round(given.seed, given.examples))
    end = time.monotonic() + given.minutes * 60
    failed, number = 0, given.seed
    while time.monotonic() < end:
        command = [sys.executable, "-m", "tests.fuzz", "--rounds", "1", "--seed", str(number)]
        failed |= subprocess.run([*command, "--examples", str(given.examples)], check=False).returncode
        number += 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
