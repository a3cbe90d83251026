"""Augmentation beside torchvision: milliseconds an image on one core, part by part and policy by
policy.

    python benchmarks/augmentation.py [--parts 'affine,resized crop']
        [--images 50] [--repeats 5] [--size 224]

Both begin with the same kept image, 256x341, uint8, and end with a uint8 tensor; torchvision's
transforms v2 get it as their ToImage gives it. Ours includes making the image's own random numbers,
theirs draws from the global state. The two take turns within a repeat, in one thread, whose
processor time is taken; the median of the repeats counts. Theirs is left out where torchvision has
no such transform. Parts that keep the scale are measured with their crop of the middle. Batches of
32 are mixed as training has them: ours in uint8, theirs in float32, as after normalising.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import RESULTS, described, save
from PIL import Image
from torchvision.transforms import v2

from foveate.data.augment import Augment, render
from foveate.data.augment.mix import Mix, mixed, mixed_targets
from foveate.data.augment.streams import batch_generator, generator

BILINEAR = v2.InterpolationMode.BILINEAR


def peers(size: int) -> dict[str, tuple[Augment, v2.Transform | None]]:
    """Name -> our augmentation and the transform that does the same."""
    middle, resized, mirror = (
        v2.CenterCrop(size),
        v2.RandomResizedCrop(size),
        v2.RandomHorizontalFlip(0.5),
    )
    padding = size // 8
    affine = v2.RandomAffine(15, (0.1, 0.1), (0.9, 1.1), 5, BILINEAR)
    pca = Augment(pca_colour=0.1, pca_from="imagenet")
    strong = v2.Compose(
        [
            resized,
            mirror,
            v2.TrivialAugmentWide(interpolation=BILINEAR),
            v2.RandomErasing(0.1, value=0),
        ]
    )
    light = v2.Compose([v2.RandomCrop(size, padding=padding, padding_mode="symmetric"), mirror])

    def after_middle(transform: v2.Transform) -> v2.Transform:
        return v2.Compose([middle, transform])

    return {
        "nothing": (Augment(), middle),
        "random crop": (
            Augment(crop="random"),
            v2.RandomCrop(size, padding=padding, padding_mode="symmetric"),
        ),
        "resized crop": (Augment(crop="resized"), resized),
        "mirror": (Augment(hflip=1), after_middle(v2.RandomHorizontalFlip(1))),
        "upside down": (Augment(vflip=1), after_middle(v2.RandomVerticalFlip(1))),
        "rotation": (Augment(rotation=15), after_middle(v2.RandomRotation(15, BILINEAR))),
        "affine": (
            Augment(rotation=15, translate=0.1, scale=0.1, shear=5),
            after_middle(affine),
        ),
        "brightness": (Augment(brightness=0.4), after_middle(v2.ColorJitter(0.4))),
        "contrast": (Augment(contrast=0.4), after_middle(v2.ColorJitter(0, 0.4))),
        "saturation": (Augment(saturation=0.4), after_middle(v2.ColorJitter(0, 0, 0.4))),
        "hue": (Augment(hue=0.1), after_middle(v2.ColorJitter(0, 0, 0, 0.1))),
        "all colours": (
            Augment(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
            after_middle(v2.ColorJitter(0.4, 0.4, 0.4, 0.1)),
        ),
        "PCA colour": (pca, None),
        "TrivialAugment": (
            Augment(auto="trivial"),
            after_middle(v2.TrivialAugmentWide(interpolation=BILINEAR)),
        ),
        "RandAugment": (
            Augment(auto="rand"),
            after_middle(v2.RandAugment(interpolation=BILINEAR)),
        ),
        "erasing": (Augment(erasing=1), after_middle(v2.RandomErasing(1, value=0))),
        "light": (Augment("light"), light),
        "standard": (Augment("standard"), v2.Compose([resized, mirror])),
        "standard, rotation, PCA colour": (
            Augment("standard", rotation=15, pca_colour=0.1, pca_from="imagenet"),
            None,
        ),
        "strong": (Augment("strong"), strong),
    }


def batches(size: int) -> dict[str, tuple[Callable[[int], object], Callable[[int], object]]]:
    """mixup and CutMix of 32 images and their labels."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, size, size, 3), np.uint8)
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    targets = torch.eye(10)[torch.arange(32) % 10]

    def ours(augmentation: Augment) -> Callable[[int], object]:
        def run(i: int) -> object:
            mix = augmentation.part(Mix)
            mixture = mix.draw(len(pixels), size, size, batch_generator(0, 0, i))
            return mixed(pixels, mixture), mixed_targets(targets, mixture)

        return run

    their_mixup, their_cutmix = v2.MixUp(alpha=0.2), v2.CutMix(alpha=1.0)
    return {
        "mixup of a batch": (ours(Augment(mixup=0.2)), lambda i: their_mixup(batch, targets)),
        "CutMix of a batch": (
            ours(Augment(cutmix=1.0)),
            lambda i: their_cutmix(batch, targets),
        ),
    }


def milliseconds(run: Callable[[int], object], first: int, images: int) -> float:
    begun = time.thread_time()  # of this core: what else runs on the machine counts little
    for i in range(first, first + images):
        run(i)
    return 1000 * (time.thread_time() - begun) / images


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", help="comma-separated; all by default")
    parser.add_argument("--images", type=int, default=50, help="in each repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--out", type=Path, default=RESULTS / "augmentation.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # batches come and go in training: from then on malloc keeps memory
    torch.rand(32, 3, arguments.size, arguments.size)

    coarse = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((341, 256), Image.Resampling.BICUBIC)
    kept, theirs = np.asarray(image), v2.functional.to_image(image)
    work: dict[str, tuple[Callable[[int], object], Callable[[int], object] | None]] = {}
    for name, (ours, peer) in peers(arguments.size).items():

        def run(i: int, ours: Augment = ours) -> object:
            return render(kept, ours.draw(0, 0, i, kept.shape, arguments.size))

        work[name] = (run, peer and (lambda i, peer=peer: peer(theirs)))
    work |= batches(arguments.size)
    work["random numbers"] = (lambda i: generator(0, 0, i), None)
    chosen = arguments.parts.split(",") if arguments.parts else list(work)

    results = {}
    for name in chosen:
        times: dict[str, list[float]] = {"foveate": [], "torchvision": []}
        contenders = [(who, run) for who, run in zip(times, work[name], strict=True) if run]
        for _, run in contenders:
            run(0)
        for repeat in range(arguments.repeats):
            for who, run in contenders:
                times[who].append(milliseconds(run, repeat * arguments.images, arguments.images))
        medians = {who: round(statistics.median(t), 4) for who, t in times.items() if t}
        ratio = (
            round(medians["torchvision"] / medians["foveate"], 2)
            if "torchvision" in medians
            else None
        )
        results[name] = {"milliseconds": medians, "times_faster": ratio}
        shown = "  ".join(f"{who} {ms:7.3f} ms" for who, ms in medians.items())
        print(f"{name:32}{shown}" + (f"  x{ratio}" if ratio else ""), file=sys.stderr, flush=True)

    report = {
        **described("augmentation", "foveate torch torchvision numpy pillow"),
        "threads": 1,
        "size": arguments.size,
        "images": arguments.images,
        "repeats": arguments.repeats,
        "results": results,
    }
    save(report, arguments.out)


if __name__ == "__main__":
    main()
