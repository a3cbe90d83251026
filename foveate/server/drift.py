"""Whether today's images are as far from the classes as the training images were.

Each image's distance to the nearest class is known as a normal score: by its rank among training
images, measured without their fold. The mean of n such scores, of images like the training images
and independent of one another, is normal around 0 with variance 1 / n, and 1 / m more of the m
scores that say what is usual. Every WINDOW images their mean is looked at once: an alarm where it
is beyond what happens by chance in one window of a thousand.
"""

from statistics import NormalDist

from foveate.rejection import Rejection

WINDOW = 200  # images
FALSE_ALARMS = 0.001  # of windows, where nothing has changed


class Drift:
    """The distances of a server's images.

    Args:
        rejection: of the classifier.
    """

    def __init__(self, rejection: Rejection):
        usual = rejection.scale.known.shape[1]
        spread = (1 / WINDOW + 1 / usual) ** 0.5
        self.threshold = NormalDist().inv_cdf(1 - FALSE_ALARMS) * spread
        self.sum, self.count = 0.0, 0  # of the window that is being filled
        self.mean = 0.0  # of the last full window
        self.windows = self.alarms = 0

    def add(self, distance: float) -> None:
        """Note an image's normal score."""
        self.sum += distance
        self.count += 1
        if self.count == WINDOW:
            self.mean = self.sum / WINDOW
            self.windows += 1
            self.alarms += self.alarm
            self.sum, self.count = 0.0, 0

    @property
    def alarm(self) -> bool:
        """Whether the last full window lies farther from the classes than chance puts it."""
        return self.mean > self.threshold
