"""Draw docs/explain.jpg: why a run's classifier gives a photo its three most probable classes.

python docs/make_explain.py RUN PHOTO
"""

import sys
from dataclasses import replace
from pathlib import Path

from foveate import Classifier
from foveate.explanation import Explainer
from foveate.explanation.drawing import draw


def main(run: str, photo: str) -> None:
    found = Explainer(Classifier.load(run)).compare(photo, 3)
    named = [replace(one, file="shirt.jpg") for one in found]
    draw(named).save(Path(__file__).with_name("explain.jpg"), quality=85)


if __name__ == "__main__":
    main(*sys.argv[1:])
