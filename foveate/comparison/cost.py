"""What a classifier weighs: multiply-accumulates of an answer, parameters, bytes on disk."""

from typing import Any

from foveate.classifier import Classifier
from foveate.storage import size_of


def costs_of(classifier: Classifier) -> dict[str, int]:
    """macs of one answer, over all views and mirror images; parameters; bytes of its folder."""
    network = classifier.network()
    return {
        "macs": macs_of(classifier, network),
        "parameters": sum(p.numel() for p in network.parameters()),
        "bytes": sum(map(size_of, classifier.folder.rglob("*"))),
    }


def macs_of(classifier: Classifier, network: Any) -> int:
    """Multiply-accumulates of one answer."""
    from foveate.models.summary import run, summarise

    def stages(twin: Any, image: Any) -> Any:
        return twin.stages(image)

    channels, views = classifier.preprocess.channels, classifier.preprocess.views
    sizes = [(channels, view.crop, view.crop) for view in views]
    if classifier.card["form"] not in ("probe", "joined"):
        return sum(summarise(network, size).macs for size in sizes)
    if classifier.card["form"] == "probe":
        readers = [network.backbone] * len(sizes)
    else:
        readers = network.readers
    work = network.linear.weight.numel()
    for reader, size in zip(readers, sizes, strict=True):
        _, recorder = run(reader, size, stages)
        work += recorder.follower.macs * (2 if classifier.card["mirror"] else 1)
    return int(work)
