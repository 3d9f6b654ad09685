"""Measures ssl_dgm: against a hand-written loop and Pyro, per model, per seed, against the machine's peak.

    python scripts/benchmark.py                                 everything, some ten minutes on 2 CPU cores
    python scripts/benchmark.py --quick                         everything, roughly
    python scripts/benchmark.py --only m2,m1m2 --json out.json

All that is compared takes turns in blocks, in processes of their own, and ratios are taken within a round.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from benchmarks.parts import PARTS, Plan
from benchmarks.race import RacerFailed

from ssl_dgm.config import UserError
from ssl_dgm.training.fit import find_device


def machine(device: torch.device, threads: int) -> dict[str, Any]:
    """What was measured on, and when."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return {
        "machine": f"{os.cpu_count()} x {names[0]}" if info.exists() and names else platform.processor(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": threads,
        "load": os.getloadavg()[0],  # of others, before we begin
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def parsed() -> argparse.Namespace:
    """The command line; what a flag leaves open depends on --quick."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = "; ".join(f"{name}: {part.__doc__}" for name, part in PARTS.items())
    parser.add_argument("--only", metavar="PART,...", default=",".join(PARTS), help=parts)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, smaller sizes")
    parser.add_argument("--rounds", type=int, help="blocks of every loop")
    parser.add_argument("--block", type=int, help="updates of a block (fewer where an update is long)")
    parser.add_argument("--warm", type=int, help="updates that make q(y | x) sure before m2 and m1m2 are compared")
    parser.add_argument("--class-threshold", type=float, default=0.05, help="of objective.class_threshold's rows")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of every process")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the same numbers for machines, in full")
    given = parser.parse_args()
    for name, value in {"rounds": (3, 10), "block": (4, 20), "warm": (100, 300)}.items():
        if getattr(given, name) is None:
            setattr(given, name, value[not given.quick])
        elif getattr(given, name) < 1:
            parser.error(f"--{name} {getattr(given, name)} is not positive; use for example --{name} {value[1]}")
    given.only = given.only.split(",")
    if unknown := [name for name in given.only if name not in PARTS]:
        parser.error(f"--only {unknown[0]} is no part; there are {', '.join(PARTS)}")
    return given


def main() -> None:
    """Measures the parts that were asked for; exit code 1 when one failed."""
    given = parsed()
    try:
        device = find_device(given.device)
    except UserError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        sys.exit(2)
    torch.set_num_threads(given.threads)
    plan = Plan(
        str(device), given.threads, given.rounds, given.block, given.warm, given.class_threshold, given.quick
    )  # fmt: skip
    about = machine(device, given.threads)
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    found: dict[str, Any] = {}
    for name in given.only:
        started = time.perf_counter()
        try:
            tables = PARTS[name](plan)
        except RacerFailed as error:
            found[name] = {"failed": str(error)}
            print(f"\n{name} failed: {error}", file=sys.stderr, flush=True)
            continue
        seconds = time.perf_counter() - started
        found[name] = {"seconds": seconds, "tables": [asdict(table) for table in tables]}
        print(f"\n=== {name} ({seconds:.0f} s)", *tables, sep="\n\n", flush=True)
    if given.json:
        given.json.write_text(json.dumps({"about": about, "plan": asdict(plan), "parts": found}, indent=1))
    if any("failed" in part for part in found.values()):
        sys.exit(1)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        # Of the processes too, so that nothing is left behind by one that had to be killed.
        os.environ["TMPDIR"] = scratch
        main()
