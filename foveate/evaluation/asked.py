"""What may be asked of an evaluation beside its figures: how well one class is told from the
others, a threshold for it, what mistakes cost, and whether another classifier is better."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from foveate.arguments import option
from foveate.classifier import Classifier
from foveate.classifier.tta import Tta
from foveate.data.dataset import Dataset, listed
from foveate.errors import DataError, UsageError, quoted
from foveate.evaluation.answers import Answers
from foveate.evaluation.costs import Costs, read_costs, weigh
from foveate.evaluation.labels import known_labels
from foveate.evaluation.learnt import collected, find_learnt
from foveate.evaluation.operating import check_target, judge, rank
from foveate.evaluation.pairs import compare
from foveate.evaluation.point import fixed
from foveate.progress import Progress


@dataclass(frozen=True)
class Asked:
    """What is asked, checked.

    Args:
        positive: the number of a class, or None.
        point: a threshold for it, from `point.fixed`.
        costs: of mistakes.
        against: another classifier.
    """

    positive: int | None = None
    point: dict[str, Any] | None = None
    costs: Costs | None = None
    against: Classifier | None = None

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        positive: str | None,
        recall: float | None,
        precision: float | None,
        cost: str | os.PathLike[str] | None,
        against: Classifier | None,
    ) -> "Asked":
        """UsageError or DataError for what cannot be answered; arguments are `evaluate`'s."""
        number, target = None, None
        if (positive, recall, precision) != (None, None, None):
            number, target = check_target(positive, recall, precision, classifier.classes)
        several = classifier.task == "multilabel"
        if cost is not None and several:
            raise UsageError(
                f"{option('cost')} is of one class an image, and {quoted(classifier.folder)} "
                "gives any number of labels"
            )
        if against is not None and against.task != classifier.task:
            raise UsageError(
                f"{quoted(against.folder)} is {against.task}, and {quoted(classifier.folder)} "
                f"{classifier.task}: they cannot be compared"
            )
        table = None if cost is None else read_costs(cost, classifier.classes)
        point = None if target is None else fixed(classifier, target)
        return cls(number, point, table, against)

    @property
    def named(self) -> str:
        """The first option that was given, or ""."""
        given = {
            "positive": self.positive,
            "cost": self.costs,
            "against": self.against,
        }
        return next((option(name) for name, value in given.items() if value is not None), "")

    def answered(self, classifier: Classifier, answers: Answers) -> dict[str, Any]:
        """ranking, operating_point and costs, those that are asked.

        Args:
            answers: on images that the classifier did not learn from.
        """
        found: dict[str, Any] = {}
        if self.positive is not None:
            scores, there = answers.probabilities[:, self.positive], answers.having(self.positive)
            name = classifier.classes[self.positive]
            if there.any() and not there.all():
                found["ranking"] = {"positive": name} | rank(scores, there, answers.groups)
            elif self.point is None:
                raise DataError(
                    f"{'all' if there.any() else 'none'} of the {len(answers)} images are of "
                    f"{name!r}: how well it is told from others takes both"
                )
            if self.point is not None:  # also on images that are all of it, or none
                on_these = judge(self.point["threshold"], scores, there, answers.groups)
                found["operating_point"] = self.point | {"on_these": on_these}
        if self.costs is not None:
            chosen = classifier.decision.chosen(answers.probabilities)
            found["costs"] = weigh(
                self.costs, answers.probabilities, answers.labels, chosen, answers.groups
            )
        return found

    def compared(
        self,
        classifier: Classifier,
        dataset: Dataset,
        answers: Answers,
        tta: Tta,
        progress: Progress,
    ) -> dict[str, Any]:
        """How the classifier does beside the other one, on images that neither learnt from.

        Args:
            dataset: of readable images.
            answers: on those of them that the classifier did not learn from.

        Raises:
            DataError: there are none.
        """
        other = self.against
        assert other is not None
        place = {file: row for row, file in enumerate(dataset.files)}
        dataset = dataset.select(np.array([place[file] for file in answers.files], np.int64))
        copies, _ = find_learnt(other, dataset, progress) if len(dataset) else ({}, 0)
        new = np.array([file not in copies for file in dataset.files], bool)
        if not new.any():
            raise DataError(
                f"one of {quoted(classifier.folder)} and {quoted(other.folder)} learnt from each "
                "of these images, or from copies of them: they compare nothing"
            )
        dataset, answers = dataset.select(new), answers.select(new)
        labels = known_labels(dataset, other.classes, f"the classifier in {quoted(other.folder)}")
        rows, found, bad = collected(other.dataset_probabilities(dataset, tta), dataset, progress)
        if bad:
            raise DataError(f"{listed(bad)} could be read a moment ago, and cannot any more")
        theirs = Answers(dataset.files, labels[rows], np.stack(found), answers.groups)
        losses = np.stack([answers.losses(), theirs.losses()])
        right, also = answers.right(classifier.decision), theirs.right(other.decision)
        name = (other.run if (other.run / "metrics.json").exists() else other.folder).resolve().name
        return {"run": name} | compare(right, also, losses, answers.groups)
