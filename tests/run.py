"""Run the test suite on every database that answers, and say at the end which one did not.

``python -m tests.run [--coverage] [--soak] [--only sqlite,postgres] [arguments for pytest]``
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.services import refusal, required

ROOT = Path(__file__).parent.parent
# A run that hangs must end while somebody still waits for it.
LIMIT_SECONDS = 3600
SOAK_LIMIT_SECONDS = 3 * 3600

# On in-memory SQLite all threads share one connection, which concerns the test support alone.
MEMORY_TESTS = ["tests/test_testing.py"]
#: What is run one after the other on each database where nothing is chosen, the longest first.
PARTS = {"acceptance": ["tests/acceptance"], "units": ["--ignore=tests/acceptance"]}

#: How many runs go side by side; the fault tests in their long form load a machine.
AT_ONCE, AT_ONCE_SOAKING = 4, 2
SERVERS = ("postgres", "mariadb")
DATABASES = ["sqlite", *SERVERS, "sqlite-memory"]


#: How pytest begins a line about what failed, and how many of these are told again at the end.
FAULTS = ("E  ", "FAILED tests/", "ERROR tests/")
FAULTS_SHOWN = 30


@dataclass(frozen=True)
class Run:
    """How one run fared, pytest's closing line, and what it said of what failed."""

    name: str
    passed: bool
    line: str
    faults: list[str] = field(default_factory=list)


def main(arguments: list[str]) -> int:
    """Return the exit code: 0 when every run passed and no required database was left out."""
    options, arguments = _parser().parse_known_args(arguments)
    command = [sys.executable, "-m", "pytest"]
    if options.coverage:
        command = [sys.executable, "-m", "coverage", "run", "-m", "pytest"]
    if options.soak:
        os.environ["SOAK"] = "1"
        # Some of them take long, and none of those hangs.
        command += ["--override-ini", "faulthandler_timeout=1800"]
        arguments = arguments or ["tests/acceptance"]
        options.only = sorted(options.only, key=lambda name: name not in SERVERS)  # long ones first

    left_out: list[str] = []
    databases: list[str] = []
    for database in options.only:
        reason = refusal(database) if database in SERVERS else ""
        if reason:
            left_out.append(f"{database} ({reason})")
        else:
            databases.append(database)
    runs = chosen(databases, arguments)
    return report(run_all({name: [*command, *each] for name, each in runs.items()}), left_out)


def chosen(databases: list[str], arguments: list[str]) -> dict[str, list[str]]:
    """Return the runs by name, each with its arguments: the database is the name's first word."""
    servers = [database for database in databases if database != "sqlite-memory"]
    if arguments:
        return dict.fromkeys(servers, arguments)
    runs = {f"{db} {part}": paths for part, paths in PARTS.items() for db in servers}
    return runs | ({"sqlite-memory": MEMORY_TESTS} if "sqlite-memory" in databases else {})


def run_all(commands: dict[str, list[str]]) -> list[Run]:
    """Run pytest again and again, a few at a time: much of its time it waits for processes."""
    started: list[subprocess.Popen[str]] = []
    with ThreadPoolExecutor(AT_ONCE_SOAKING if os.environ.get("SOAK") else AT_ONCE) as pool:
        runs = [pool.submit(run, *each, started) for each in commands.items()]
        try:
            return [each.result() for each in runs]
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in started:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGINT)
            raise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Run the tests on each database.")
    parser.add_argument("--coverage", action="store_true", help="note which lines are reached")
    parser.add_argument("--soak", action="store_true", help="the fault tests in their long form")
    parser.add_argument(
        "--only",
        type=lambda names: names.split(","),
        default=DATABASES,
        metavar="NAMES",
        help=f"some of {','.join(DATABASES)}",
    )
    return parser


def run(name: str, command: list[str], started: list[subprocess.Popen[str]]) -> Run:
    """Run pytest on a database, its output passed through, its closing line kept."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "DATABASE": name.split(maxsplit=1)[0]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that what the tests started can be ended with them
    )
    started.append(process)
    limit = SOAK_LIMIT_SECONDS if os.environ.get("SOAK") else LIMIT_SECONDS
    timer = threading.Timer(limit, os.killpg, [process.pid, signal.SIGKILL])
    timer.start()
    try:
        line, faults = pass_through(name, process)
        expired = not timer.is_alive()
        code = process.wait()
    finally:
        timer.cancel()
    if expired:
        line = f"killed after {limit} seconds; its last line: {line}"
    return Run(name, code == 0 and not expired, line, faults)


def pass_through(name: str, process: subprocess.Popen[str]) -> tuple[str, list[str]]:
    """Print what the process prints; return its last line, and those that say what failed."""
    last, faults = "", []
    for line in process.stdout or ():
        print(f"{name:19} | {line}", end="", flush=True)
        last = line.strip() or last
        if line.startswith(FAULTS):
            faults.append(line.rstrip())
    return last, faults


def report(runs: list[Run], left_out: list[str]) -> int:
    """Print one line for each run and return the exit code of the whole.

    What failed is told once more: it may be thousands of lines above.
    """
    for one in runs:
        if not one.passed:
            print(f"\n{one.name}:", *one.faults[-FAULTS_SHOWN:], sep="\n")
    print()
    for line in left_out:
        print(f"{'LEFT OUT, but required' if required() else 'left out'}: {line}")
    for one in runs:
        print(f"{one.name:20}{'ok  ' if one.passed else 'FAIL'}  {one.line}")
    return 0 if all(one.passed for one in runs) and not (left_out and required()) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
