"""The canon: one paper per file, every network under its name.

>>> build("efficientnet_lite0", num_classes=10).head.out_features
10
"""

import difflib
from collections.abc import Callable
from typing import Any

from torch import nn

from foveate.models import efficientnet

MODELS: dict[str, Callable[..., nn.Module]] = {
    "efficientnet_b0": efficientnet.efficientnet_b0,
    "efficientnet_b1": efficientnet.efficientnet_b1,
    "efficientnet_b2": efficientnet.efficientnet_b2,
    "efficientnet_b3": efficientnet.efficientnet_b3,
    "efficientnet_b4": efficientnet.efficientnet_b4,
    "efficientnet_b5": efficientnet.efficientnet_b5,
    "efficientnet_b6": efficientnet.efficientnet_b6,
    "efficientnet_b7": efficientnet.efficientnet_b7,
    "efficientnet_lite0": efficientnet.efficientnet_lite0,
    "efficientnet_lite1": efficientnet.efficientnet_lite1,
    "efficientnet_lite2": efficientnet.efficientnet_lite2,
    "efficientnet_lite3": efficientnet.efficientnet_lite3,
    "efficientnet_lite4": efficientnet.efficientnet_lite4,
}


def build(name: str, num_classes: int | None = None, in_channels: int | None = None) -> nn.Module:
    """A network of the canon with random weights.

    Args:
        name: a key of MODELS.
        num_classes: outputs of the last layer; the paper's by default.
        in_channels: 3 for RGB, 1 for grey; the paper's by default.

    Raises:
        ValueError: no such network; the message has the nearest names.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(MODELS)}"
        raise ValueError(f"no network is called '{name}'; {hint}")
    given: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels}
    return MODELS[name](**{key: value for key, value in given.items() if value is not None})
