"""Plants faults in the program and counts what it loses: `python campaign --number 200 --seed 1`.

Each fault has a number; the same seed and number plant the same one again (--only). Exit status 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch: threads of the parent would not survive a fork
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("campaign", "tests/support", "benchmarks", "")]

import torch  # noqa: E402

torch.set_num_threads(1)

import badfiles  # noqa: E402
import damage  # noqa: E402
import hostile  # noqa: E402
import hostile_links  # noqa: E402
import hostile_names  # noqa: E402
import hostile_shards  # noqa: E402
import kills  # noqa: E402
import launchers  # noqa: E402
import parsers  # noqa: E402
import values  # noqa: E402
from faults import LOST, format_table, try_number  # noqa: E402
from world import World  # noqa: E402

FAMILIES = {  # the quick ones first
    "parsers": parsers.KINDS,
    "hostile": [*hostile.KINDS, *hostile_links.KINDS, *hostile_names.KINDS, *hostile_shards.KINDS],
    "files": badfiles.KINDS,
    "values": values.KINDS,
    "damage": damage.KINDS,
    "kills": [*kills.KINDS, *launchers.KINDS],
}
MOMENTS = "moments"  # each operation of each stage, none by chance; only if it is asked for
SHARES = {"kills": 0.8, "damage": 0.6, "values": 0.25, "files": 3.9, "parsers": 1.5}  # of --number
SAY_SECONDS = 60.0
_forked: dict = {}  # what the workers have from their parent by being forked


def main() -> int:
    parser = argparse.ArgumentParser(prog="python campaign", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=100,
                        help="how many faults of a family (100); of slow kinds fewer, of files more, of hostile all, "
                             "of any kind one")
    parser.add_argument("--seed", type=int, default=0, help="which faults (0)")
    parser.add_argument("--family", choices=[*FAMILIES, MOMENTS], action="append",
                        help="only this family; may be repeated; moments plants a kill and an error at each operation "
                             "of each stage")
    parser.add_argument("--only", type=int, help="only the fault of that number, with what it says")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="at once (cores)")
    parser.add_argument("--videos", type=Path, help="a folder of your own videos and NetCDF files, mutated as well")
    arguments = parser.parse_args()
    if arguments.videos:
        badfiles.add_own(arguments.videos)
    started = said = time.monotonic()
    results = []
    try:
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            world = World(Path(folder))
            print(f"seed {arguments.seed}", file=sys.stderr, flush=True)
            if arguments.workers > 1:  # several workers know what was measured before they were forked
                stages = [f"{stage.title} {stage.undisturbed.seconds:.1f} s, {stage.undisturbed.operations} operations"
                          for stage in world.stages.values()]
                print(f"undisturbed: {', '.join(stages)}", file=sys.stderr, flush=True)
            for family in arguments.family or FAMILIES:
                kinds = kills.every_moment(world) if family == MOMENTS else FAMILIES[family]
                count = len(kinds)  # each at least once
                if family not in ("hostile", MOMENTS):
                    count = max(count, round(SHARES.get(family, 1) * arguments.number))
                numbers = range(count) if arguments.only is None else [arguments.only]
                _forked.update(world=world, kinds=kinds, seed=arguments.seed)
                with multiprocessing.get_context("fork").Pool(arguments.workers) as pool:
                    for number, result in zip(numbers, pool.imap(_try, numbers), strict=True):
                        results.append(result)
                        if time.monotonic() > said + SAY_SECONDS:
                            said = time.monotonic()
                            print(f"{family}: {number + 1} of {count}", file=sys.stderr, flush=True)
                        if result.outcome == LOST:
                            print(f"{family} {number}: {result.kind}: {result.note}", file=sys.stderr, flush=True)
                print(f"{family}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("interrupted; what was tried:", file=sys.stderr)
    print(format_table(results))
    return int(any(result.outcome == LOST for result in results))


def _try(index: int):
    return try_number(index=index, **_forked)


if __name__ == "__main__":
    sys.exit(main())
