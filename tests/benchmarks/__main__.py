"""Print the table of ratios, and write the figures as JSON: ``make bench``.

``python -m tests.benchmarks [--short] [--only NAMES] [--json PATH]``
"""

import argparse
import json
import sys
import time
from pathlib import Path

from tests.benchmarks import figures
from tests.benchmarks.bench import bench, machine
from tests.benchmarks.figures import Size
from tests.benchmarks.lines import Line, table

WHOLE = Size(rounds=5, saves=2000, whole=True)
#: Some two minutes, for the gate. It tells whether something became slow by far, on a machine that
#: may be busy; what is reached the whole form says.
SHORT = Size(rounds=3, saves=600, whole=False)
SHORT_MARGIN = 3.0


def main(arguments: list[str]) -> int:
    """Return the exit code: 0 where each line reaches what it must."""
    parser = argparse.ArgumentParser(description="Compare a call's cost with others'.")
    parser.add_argument("--short", action="store_true", help="two minutes, with wide margins")
    parser.add_argument("--only", help="names of functions of figures.py, with commas between")
    parser.add_argument("--json", type=Path, default=Path("build/benchmarks.json"))
    options = parser.parse_args(arguments)
    size, margin = (SHORT, SHORT_MARGIN) if options.short else (WHOLE, 1.0)
    parts = options.only.split(",") if options.only else ["all_lines"]

    lines: list[Line] = []
    began = time.monotonic()
    with bench() as where:
        for part in parts:
            for line in getattr(figures, part)(where, size):
                print("  ".join(cell for cell in line.as_row(margin) if cell), flush=True)
                lines.append(line)
        told = {"machine": machine(), "rounds": size.rounds, "saves": size.saves}
    print(f"\n{table(lines, margin)}\n")
    for name, reason in where.left_out.items():
        print(f"left out: {name} ({reason})")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    told |= {"lines": [line.as_dict(margin) for line in lines], "left_out": where.left_out}
    options.json.write_text(json.dumps(told, indent=1) + "\n")
    failed = sum(not line.passes(margin) for line in lines)
    print(f"{len(lines)} figures in {time.monotonic() - began:.0f} s, {failed} short of the mark.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
