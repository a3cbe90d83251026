"""Compound scaling: depth, width and resolution grown together, and each of them alone.

More work can be spent on more layers, on more channels, or on larger images. EfficientNet grows all
three by one coefficient phi: depth alpha^phi, width beta^phi, resolution gamma^phi. The work grows
as depth * width^2 * resolution^2: phi + 1 multiplies it by alpha * beta^2 * gamma^2. The published
networks' cost is compared with this, and a small residual network is grown to eight times its work
in four ways. The full form trains the four.

Source: Tan and Le. "EfficientNet". ICML 2019, arXiv:1905.11946, sections 3.2, 3.3 and figure 2.
"""

from collections.abc import Callable
from math import log, log2
from statistics import mean
from typing import Any

import numpy as np

from foveate import build
from foveate.lab.bench import Bench, Findings, Row
from foveate.lab.drawing import COLOURS, bars, dots, figure, line
from foveate.lab.images import Images
from foveate.lab.stages import Plan, interval, macs, train
from foveate.models import summarise
from foveate.models.efficientnet import ALPHA, BETA, GAMMA, VARIANTS

QUESTION = "Is more work best spent on depth, on width, on resolution, or on all three?"
MINUTES = (0.2, 20)
SIDE, CHANNELS, LAYERS = 10, (8, 16, 32), 6  # of the base: pixels, channels a stage, layers in all
TIMES, RUNS, EPOCHS, IMAGES = 8, 5, 15, 12_000
RULE = ALPHA * BETA**2 * GAMMA**2  # the work of phi + 1, in that of phi
WAYS: dict[str, Callable[[float], tuple[float, float, float]]] = {
    "deeper": lambda t: (t, 1, 1),  # depth, width and resolution for t times the work
    "wider": lambda t: (1, t**0.5, 1),
    "larger images": lambda t: (1, 1, t**0.5),
    "compound": lambda t: (ALPHA ** log2(t), BETA ** log2(t), GAMMA ** log2(t)),
}


def grown(depth: float, width: float, resolution: float) -> Plan:
    """The base, with each of the three multiplied and rounded; late stages get a layer first."""
    channels, layers = tuple(round(c * width) for c in CHANNELS), round(LAYERS * depth)
    return Plan(channels, tuple((layers + i) // 3 for i in range(3)), round(SIDE * resolution))


def scaled(way: str, images: Images, times: float = TIMES) -> Plan:
    """The base grown in one way, as near to the work as whole layers, channels and pixels come."""
    size = images.channels, len(images.classes)
    target = times * macs(grown(1, 1, 1), *size)
    plans = sorted({grown(*WAYS[way](times * t)) for t in np.arange(0.7, 1.3, 0.01)})
    return min(plans, key=lambda plan: abs(macs(plan, *size) - target))


def published() -> list[Row]:
    """B0 to B7: by which phi each of the three has grown, and what the networks cost."""
    rows: list[Row] = []
    for name, v in VARIANTS.items():
        side, cost = v.resolution / VARIANTS["efficientnet_b0"].resolution, summarise(build(name))
        product = v.depth * v.width**2 * side**2
        rows.append(
            {
                "network": name,
                "phi": log(product) / log(RULE),
                "by depth": log(v.depth) / log(ALPHA),
            }
            | {"by width": log(v.width) / log(BETA), "by resolution": log(side) / log(GAMMA)}
            | {"product": product, "pixels": v.resolution}
            | {"parameters": cost.parameters, "MACs": cost.macs}
        )
    return rows


def shape(panel: Any, name: str, plan: Plan, work: int) -> None:
    """The image as a square; each stage as a box, as long as deep and as high as wide."""
    starts, heights = np.cumsum((0, *plan.layers[:-1])), np.array(plan.channels)
    panel.bar(-2, plan.side, -0.38 * plan.side, -plan.side / 2, align="edge", color="0.8")
    panel.bar(starts, heights, plan.layers, -heights / 2, align="edge", color=COLOURS[:3])
    parts = f"{plan.side} pixels, {sum(plan.layers)} layers, {heights[0]} to {heights[-1]} channels"
    panel.set(xlim=(-14, 37), ylim=(-50, 50), title=f"{name}: {work / 1e6:.2f} M MACs\n{parts}")
    panel.set_axis_off()


def growth(panel: Any, rows: list[Row]) -> None:
    phi = [row["phi"] for row in rows]
    for number, cost in enumerate(("MACs", "parameters")):
        line(panel, phi, [row[cost] / rows[0][cost] for row in rows], number, f"{cost}, B0 to B7")
    panel.plot(phi, [2**p for p in phi], color="black", ls=":", label="2^φ")
    panel.plot(phi, [RULE**p for p in phi], color="black", lw=1, label=f"{RULE:.2f}^φ, the rule")
    panel.set(yscale="log", title="published networks: times B0", xlabel="φ")
    panel.legend(loc="upper left")


def run(bench: Bench) -> Findings:
    images = bench.images("fashion-mnist", side=29, most=IMAGES)
    plans = {"base": grown(1, 1, 1)} | {way: scaled(way, images) for way in WAYS}
    work = {way: macs(plan, images.channels, len(images.classes)) for way, plan in plans.items()}
    bench.steps(1 if bench.quick else 1 + RUNS * len(plans), "measurements")
    rows: list[Row] = [*bench.measure("published", published)]

    made, axes = figure(3 if bench.quick else 4, 2, width=3, height=2.6)
    for panel, (way, plan) in zip([*axes[0, :3], *axes[1, :2]], plans.items(), strict=True):
        shape(panel, way, plan, work[way])
    growth(axes[1, 2], rows)

    last, spread = rows[-1], [work[way] / work["base"] for way in WAYS]
    arithmetic = (
        f"By the rule a step of φ multiplies the work by {RULE:.2f}, close to the 2 that the paper "
        f"aims at; from B0 to B7 depth × width² × resolution² grows {last['product']:.0f} times, "
        f"the MACs {last['MACs'] / rows[0]['MACs']:.0f} times and the parameters, which resolution "
        f"leaves alone, {last['parameters'] / rows[0]['parameters']:.1f} times."
    )
    departs = (
        f"B1's layers are rounded up: it costs {rows[1]['MACs'] / rows[0]['MACs']:.2f} times B0, "
        f"where its factors make {rows[1]['product']:.2f}; and B7 is not what one φ gives, its "
        f"depth is that of φ = {last['by depth']:.1f}, its width that of {last['by width']:.1f}, "
        f"its resolution that of {last['by resolution']:.1f}."
    )
    small = f"In four ways the small base grows to {min(spread):.1f} to {max(spread):.1f} times; "
    for way, plan in plans.items():
        size = {"layers": sum(plan.layers), "channels": plan.channels[-1], "pixels": plan.side}
        rows.append({"network": way} | size | {"MACs": work[way]})
    change = "Set TIMES to 2, then to 32: is the same way of growing the best?"
    if bench.quick:
        small += "which of the four learns best needs the full form."
        return Findings(made, rows, (arithmetic, departs, small), None, change)

    def runs(way: str, plan: Plan) -> list[list[float]]:
        seeds = range(RUNS * bench.seed, RUNS * (bench.seed + 1))
        return [bench.measure(f"{way} {s}", train, plan, images, EPOCHS, s) for s in seeds]

    trained = {way: runs(way, plan) for way, plan in plans.items()}
    scores = {way: [100 * score for score, _ in found] for way, found in trained.items()}
    times = {way: mean(seconds for _, seconds in found) for way, found in trained.items()}
    dots(axes[0, 3], scores, "accuracy on test images, %")
    bars(axes[1, 3], list(times), list(times.values()), "{:.0f}")
    axes[1, 3].set(title="time to train", xlabel="seconds")
    for row, way in zip(rows[-len(plans) :], plans, strict=True):
        row |= {"accuracy, %": mean(scores[way]), "seconds to train": times[way]}
    alone = max(list(WAYS)[:3], key=lambda way: mean(scores[way]))
    low, high = interval(scores["compound"], scores[alone])
    seen = (
        f"{arithmetic} {departs}",
        f"{small}from {mean(scores['base']):.1f} % of the base, they reach "
        + ", ".join(f"{mean(scores[way]):.1f} % ({way})" for way in WAYS)
        + f", in the mean over {RUNS} trainings.",
        f"Compound scaling is {low:+.1f} to {high:+.1f} percentage points from the best way alone "
        f"({alone}), at 95 %: {'better' if low > 0 else 'worse' if high < 0 else 'no difference'} "
        "beyond chance.",
    )
    return Findings(made, rows, seen, low > 0, change)
