"""Architecture search: networks drawn at random under a budget of work, against a scaled base.

A search that trained many networks found EfficientNet-B0; compound scaling only grew it. Here the
space is small: a network has three stages, and for each the search draws layers, a kernel and
channels, as many channels as the budget of MACs allows. Every candidate is trained once, in the
same way, and judged on images held out from the training images. The best are trained again with
other seeds and judged on the test images. So is the base that compound scaling grew to the same
budget, which takes no search at all.

Source: Tan and Le. "EfficientNet". ICML 2019, arXiv:1905.11946, section 4; Li and Talwalkar.
    "Random Search and Reproducibility for Neural Architecture Search". UAI 2019, arXiv:1902.07638.
"""

from bisect import bisect_right
from dataclasses import replace
from statistics import mean, stdev, variance
from typing import Any

import numpy as np
from scipy import stats

from foveate.lab.bench import Bench, Findings
from foveate.lab.compound_scaling import scaled
from foveate.lab.drawing import COLOURS, dots, figure
from foveate.lab.images import Images
from foveate.lab.stages import Plan, interval, macs, train

QUESTION = (
    "How much does the architecture matter at equal work, and what does a search for it cost?"
)
MINUTES = (1, 30)
TIMES, HELD, FINALISTS = 4, 0.25, 3  # the budget, in MACs of the base; held out, of the images
LAYERS, KERNELS, RATIOS = (1, 2, 3, 4, 5), (1, 3, 5), (1.0, 1.5, 2.0, 3.0)  # drawn for each stage
QUICK = {"candidates": 12, "runs": 3, "images": 2000, "epochs": 8}
FULL = {"candidates": 60, "runs": 8, "images": 12_000, "epochs": 12}


def draw(chance: np.random.Generator, budget: int, side: int, inputs: int, classes: int) -> Plan:
    """Layers, kernels and the ratio of a stage's channels to the last one's, by chance; then as
    many channels as the budget allows."""
    while True:
        layers = tuple(int(n) for n in chance.choice(LAYERS, 3))
        kernels = tuple(int(k) for k in chance.choice(KERNELS, 3))
        ratios = np.cumprod([1.0, *chance.choice(RATIOS, 2)])

        def wide(
            quarters: int, layers: Any = layers, kernels: Any = kernels, r: Any = ratios
        ) -> Plan:
            return Plan(tuple(round(quarters / 4 * x) for x in r), layers, side, kernels)

        widths = range(8, 257)  # of the first stage, in quarters of a channel
        fit = bisect_right(widths, budget, key=lambda q: macs(wide(q), inputs, classes)) - 1
        if max(kernels) > 1 and fit >= 0:
            return wide(widths[fit])


def held_out(images: Images) -> Images:
    """The same with a part of the images to learn from as those to be judged by."""
    cut = round(len(images.x) * (1 - HELD))
    return replace(
        images, x=images.x[:cut], y=images.y[:cut], test_x=images.x[cut:], test_y=images.y[cut:]
    )


def named(plan: Plan) -> str:
    """Its stages, as layers x channels, kernel."""
    stages = zip(plan.layers, plan.channels, plan.kernels, strict=True)
    return "  ".join(f"{n}×{c} k{k}" for n, c, k in stages)


def draw_search(axes: Any, plans: list[Plan], found: list[float], base: Plan) -> None:
    """Each candidate's accuracy in the order of the search; and by its depth and its kernels."""
    axes[0].plot(range(1, len(found) + 1), found, "o", color=COLOURS[5], label="a candidate")
    best = np.maximum.accumulate(found)
    axes[0].step(
        range(1, len(found) + 1), best, where="post", color=COLOURS[0], label="best so far"
    )
    axes[0].set(xlabel="networks trained", ylabel="accuracy on held-out images, %")
    axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    kernels = [float(np.average(plan.kernels, weights=plan.layers)) for plan in plans]
    depths = [sum(plan.layers) for plan in plans]
    dots = axes[1].scatter(depths, found, c=kernels, cmap="viridis", vmin=1, vmax=5)
    axes[1].figure.colorbar(dots, ax=axes[1], label="mean kernel, pixels")
    axes[1].axvline(sum(base.layers), color="black", ls=":")
    axes[1].set(xlabel="layers (dotted: of the scaled base)", title="what was drawn")


def run(bench: Bench) -> Findings:
    form = QUICK if bench.quick else FULL
    count, runs, epochs = form["candidates"], form["runs"], form["epochs"]
    images = bench.images("fashion-mnist", side=14, most=form["images"])
    size = images.channels, len(images.classes)
    base = scaled("compound", images, TIMES)
    budget, chance = macs(base, *size), np.random.default_rng(bench.seed)
    plans = [draw(chance, budget, base.side, *size) for _ in range(count)]
    bench.steps(count + (FINALISTS + 1) * runs, "trainings")
    searching = held_out(images)
    judging = replace(searching, test_x=images.test_x, test_y=images.test_y)

    def trained(key: str, plan: Plan, on: Images, seed: int) -> float:
        return 100 * float(bench.measure(f"{key} {seed}", train, plan, on, epochs, seed)[0])

    seed = bench.seed * 1000
    found = [trained(f"candidate {i}", plan, searching, seed) for i, plan in enumerate(plans)]
    order = sorted(range(count), key=lambda i: -found[i])[:FINALISTS]
    finalists = {f"{rank}. of the search": plans[i] for rank, i in enumerate(order, start=1)}
    judged = {
        name: [trained(name, plan, judging, seed + i) for i in range(1, runs + 1)]
        for name, plan in ({"scaled base": base} | finalists).items()
    }

    made, axes = figure(3, width=3.6)
    draw_search(axes[0], plans, found, base)
    dots(axes[0, 2], judged, "accuracy on test images, %")
    axes[0, 2].set_title("trained again, other seeds")

    best = max(finalists, key=lambda name: mean(judged[name]))
    low, high = interval(judged[best], judged["scaled base"], 1 - 0.05 / FINALISTS)
    noise = mean(variance(scores) for scores in judged.values())  # of one network, over seeds
    p = float(stats.f.sf(variance(found) / noise, count - 1, len(judged) * (runs - 1)))
    verdict = "is better than" if low > 0 else "is worse than" if high < 0 else "ties with"
    few = " So few prove nothing: that needs the full form." if bench.quick else ""
    seen = (
        f"Of {count} networks with the same budget of {budget / 1e6:.2f} M MACs, the best has "
        f"{max(found):.1f} % and the worst {min(found):.1f} %: their standard deviation is "
        f"{stdev(found):.1f} points, that of one network over seeds {noise**0.5:.1f}; by an F-test "
        f"chance alone does this with p = {p:.1g}.",
        f"The search cost {count} trainings and its finalists {FINALISTS * runs} more; the scaled "
        "base needs one, its three coefficients being those that the paper had searched for.",
        f"The best finalist {verdict} the scaled base: {mean(judged[best]):.1f} % against "
        f"{mean(judged['scaled base']):.1f} % over {runs} seeds each, {low:+.1f} to {high:+.1f} "
        f"points of difference, at 95 % for all {FINALISTS} finalists together.{few}",
    )
    rows = [
        {"network": "scaled base", "stages": named(base), "MACs": budget}
        | {"test, %": mean(judged["scaled base"])}
    ]
    for i, plan in enumerate(plans):
        rows.append({"network": f"candidate {i + 1}", "stages": named(plan)})
        rows[-1] |= {"MACs": macs(plan, *size), "held out, %": found[i]}
        if i in order:
            rows[-1] |= {"test, %": mean(judged[f"{order.index(i) + 1}. of the search"])}
    shown = None if bench.quick else p < 0.05
    return Findings(made, rows, seen, shown, "Set KERNELS to (3,): does the search still gain?")
