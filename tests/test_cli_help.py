"""Panels of help, and what a shell completes, as it asks for it."""

from pathlib import Path

import pytest
from commands import foveate

PANELS = ["Arguments:", "Everyday:", "Data:", "Fine-tuning", "Augmentation:", "Execution:"]


def sections(text: str) -> dict[str, list[str]]:
    """The options of each section."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith(" "):
            found[line] = []
        elif line.lstrip().startswith("-"):
            found[[*found][-1]].append(line.split()[0])
    return found


def test_train_lists_its_options_in_panels_the_everyday_ones_first() -> None:
    done = foveate("train", "--help", COLUMNS="80")
    found = sections(done.stdout)
    assert done.returncode == 0, done.stderr
    assert [next(p for p in PANELS if name.startswith(p)) for name in [*found][1:]] == PANELS, (
        done.stdout
    )
    assert {"--recipe", "--model", "--out", "--json", "-h,"} <= set(found["Everyday:"])
    assert len(found["Everyday:"]) <= 12
    assert "--mixup" in found["Augmentation:"] and "--threads" in found["Execution:"]
    assert max(map(len, done.stdout.splitlines())) <= 80 and "\x1b" not in done.stdout


@pytest.mark.parametrize("verb", ["data preview", "predict", "evaluate", "weights check"])
def test_other_verbs_have_panels_only_where_they_have_many_options(verb: str) -> None:
    found = sections(foveate(*verb.split(), "--help").stdout)
    assert ("Options:" in found) == (sum(map(len, found.values())) <= 10), found


def test_completion_comes_as_a_script() -> None:
    shown = foveate("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "_FOVEATE_COMPLETE" in shown.stdout, shown.stderr


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("", {"train", "predict", "doctor"}),
        ("tr", {"train"}),
        ("trian x", set()),
        ("train --reci", {"--recipe"}),
        ("train --recipe s", {"scratch"}),
        ("train --model resnet1", {"resnet18", "resnet101", "resnet110", "resnet152"}),
        ("models lenet", {"lenet5", "lenet5_1998"}),
        ("models --family squ", {"squeezenet"}),
        ("models --sort a", {"accuracy"}),
        ("weights verify resnet50", {"resnet50", "resnet50.v1"}),
        ("train fash", {"fashion-mnist"}),
        ("evaluate run di", {"digits"}),
        # a file begins so: the shell completes it
        ("train mn", set()),
        ("data show mnist-own/", set()),
        ("data show gone/", set()),
    ],
)
def test_completed(
    typed: str, offered: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mnist-own/cat").mkdir(parents=True)
    words = f"foveate {typed}"
    done = foveate(
        COMP_WORDS=words, COMP_CWORD=str(words.count(" ")), _FOVEATE_COMPLETE="complete_bash"
    )
    found = set(done.stdout.split())
    assert found >= offered if typed == "" else found == offered, (done.stdout, done.stderr)


def test_completing_a_verb_loads_none(python) -> None:
    program = (
        "import sys; sys.argv = ['foveate']; from foveate.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted(m for m in sys.modules if m.startswith('foveate.')))"
    )
    asked = {"COMP_WORDS": "foveate t", "COMP_CWORD": "1", "_FOVEATE_COMPLETE": "complete_bash"}
    printed = python(program, **asked)
    assert "train" in printed and "foveate.cli.train" not in printed
