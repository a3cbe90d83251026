"""Is the gain that `foveate advise` expects of twice the images the one that they bring?

    python benchmarks/advise.py NAME=RUN ... [--draws N]

RUN is of a probe whose features are in the cache. Its training photos are parted by chance into
fifths that keep groups whole. On two of them, advise says what twice the images would bring; two
more are then added, and the last judges both heads. Realised is the difference there, which chance
moves as well: a prediction holds if it is within 80 % of its own error and of that of the last
fifth, together. The test split of the run plays no part.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, described, save

from foveate.advice.curve import answers, learn_curve
from foveate.advice.gain import NINE_TENTHS
from foveate.classifier.card import read_card
from foveate.data.splits import judging_folds, stratified_folds
from foveate.heads import Head, fit_head
from foveate.recomputation.features import learn_again
from foveate.report.run import read_run
from foveate.training.honest import Judging, numbered

THREADS = 2


def measure(run: Path, draws: int) -> dict[str, Any]:
    again = learn_again(read_run(run), read_card(run / "classifier"), THREADS)
    rows, classes = again.judging.rows, len(again.dataset.classes)
    features, labels = again.learnt.choice.features[rows], again.dataset.labels[rows]
    groups = again.judging.groups

    def solved(part: np.ndarray) -> tuple[Head, Judging]:
        alone = numbered(groups[part])
        folds = judging_folds(labels[part], alone, 0)
        head = fit_head(features[part], labels[part], folds, classes, THREADS)
        return head, Judging(np.arange(len(part)), alone, folds, folds)

    found = []
    for seed in range(draws):
        fifth = stratified_folds(labels, groups, 5, seed)
        first, both, judge = np.flatnonzero(fifth < 2), np.flatnonzero(fifth < 4), fifth == 4
        head, judging = solved(first)
        curve = learn_curve(features[first], labels[first], judging, head, classes, THREADS)
        if curve is None:
            found.append({"seed": seed, "expected": None})
            continue
        gain = curve.gain()
        right = [answers(one, features[judge]) == labels[judge] for one in (head, solved(both)[0])]
        change = right[1].astype(float) - right[0]
        _, group = np.unique(groups[judge], return_inverse=True)
        sums = np.bincount(group, change - change.mean())
        noise = float(np.sqrt((sums**2).sum()) / len(change))
        reach = NINE_TENTHS * float(np.hypot(gain.error, noise))
        found.append(
            {
                "seed": seed,
                "images": len(first),
                "accuracy": round(float(right[0].mean()), 4),
                "expected": round(gain.mean, 4),
                "error": round(gain.error, 4),
                "realised": round(float(change.mean()), 4),
                "noise": round(noise, 4),
                "holds": bool(abs(gain.mean - change.mean()) <= reach),
            }
        )
        print(found[-1], flush=True)
    said = [one for one in found if one["expected"] is not None]
    return {
        "draws": found,
        "expected": round(float(np.mean([one["expected"] for one in said])), 4),
        "realised": round(float(np.mean([one["realised"] for one in said])), 4),
        "holds": sum(one["holds"] for one in said),
        "of": len(said),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS / "advise.json")
    asked = parser.parse_args()
    report = described("advise", "foveate numpy")
    report["sets"] = {}
    for entry in asked.sets:
        name, _, run = entry.partition("=")
        report["sets"][name] = measure(Path(run), asked.draws)
        save(report, asked.out)
