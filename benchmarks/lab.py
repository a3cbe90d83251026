"""Does each experiment show its effect, whatever the seed?

    python benchmarks/lab.py [NAME ...] [--full] [--seeds 5]

Runs each experiment of `foveate lab` in the quick form with the seeds 0 to 4, and notes how often
its effect appeared, its sentences and its seconds. What is measured is put into the results file
beside what other calls measured. The test has another seed.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from machine import RESULTS, described, save

from foveate.lab import LABS, find
from foveate.lab.bench import Bench, run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=list(LABS))
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "lab.json")
    arguments = parser.parse_args()
    known = json.loads(arguments.out.read_text())["results"] if arguments.out.exists() else {}
    report = described("lab", "foveate torch numpy") | {"results": known}
    for name in arguments.names:
        rows = []
        for seed in range(arguments.seeds):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(
                    run(find(name).module, Bench(Path(folder), not arguments.full, "", seed))
                )
            print(name, seed, rows[-1]["shown"], rows[-1]["seconds"], flush=True)
            print("   ", "\n    ".join(rows[-1]["seen"]), flush=True)
        key = f"{name}, full" if arguments.full else name
        known[key] = {
            "date": time.strftime("%Y-%m-%d"),
            "shown": [row["shown"] for row in rows],
            "seconds": [row["seconds"] for row in rows],
            "seen": rows[0]["seen"],
        }
        save(report, arguments.out)


if __name__ == "__main__":
    main()
