"""The operating point of a classifier: fixed on what its run held back, and saved with it."""

from typing import Any

from foveate.classifier import Classifier
from foveate.classifier.saving import write_card
from foveate.errors import DataError, quoted
from foveate.evaluation.answers import HONEST, judged_by_run
from foveate.evaluation.operating import Target, check_target, fix_threshold, judge
from foveate.runs import is_absent, read_json
from foveate.storage import write_json

POINT = "operating_point"


def fix_point(
    classifier: Classifier,
    positive: str | None,
    *,
    recall: float | None = None,
    precision: float | None = None,
) -> Classifier:
    """Give a class from the probability on that keeps a recall, or a precision, on new images, and
    save that with the classifier.

    Args:
        classifier: in the run that left it.
        positive: the class.
        recall, precision: what is to be kept, above 0 and below 1; one of them.

    Returns:
        The classifier that decides so. Its card's and metrics' `operating_point` is what
        `operating.fix_threshold` returns, `split`, by which it was fixed, and, where the run had a
        test split, `on_test`, from `operating.judge`.

    Raises:
        UsageError: no class, or none of its own; neither recall nor precision, or both; out of
            range.
        DataError: too few images could be judged.
        ArtefactError: the run has nothing of the images that it held back.
    """
    _, target = check_target(positive, recall, precision, classifier.classes, needed=True)
    assert target is not None
    return saved(classifier, fixed(classifier, target))


def forget_point(classifier: Classifier) -> Classifier:
    """Give every image the most probable class again, or what its label's own threshold says."""
    return saved(classifier, None)


def fixed(classifier: Classifier, target: Target) -> dict[str, Any]:
    """The threshold that keeps what is asked, as `fix_point` saves it."""
    number = classifier.classes.index(target.positive)
    honest = judged_by_run(classifier, HONEST)
    if honest is None:
        raise DataError(
            f"the run of {quoted(classifier.folder)} judged no image that it learnt from: a "
            "threshold cannot be fixed"
        )
    split, answers = honest
    scores, there = answers.probabilities[:, number], answers.having(number)
    point = {"split": split} | fix_threshold(target, scores, there, answers.groups)
    test = judged_by_run(classifier, ("test",))
    if test is not None:
        scores, there = test[1].probabilities[:, number], test[1].having(number)
        point["on_test"] = judge(point["threshold"], scores, there, test[1].groups)
    return point


def decided(classifier: Classifier, point: dict[str, Any] | None) -> Classifier:
    """The classifier with another operating point, or none; nothing is written."""
    card = {key: value for key, value in classifier.card.items() if key != POINT}
    card |= {} if point is None else {POINT: point}
    return Classifier(classifier.folder, card, classifier.threads, classifier.module)


def saved(classifier: Classifier, point: dict[str, Any] | None) -> Classifier:
    """The same, written into its card, and its run's metrics.json."""
    changed = decided(classifier, point)
    write_card(changed.folder, changed.card)
    metrics = changed.run / "metrics.json"
    if not is_absent(metrics):
        figures = {key: value for key, value in read_json(metrics).items() if key != POINT}
        write_json(metrics, figures | ({} if point is None else {POINT: point}))
    return changed
