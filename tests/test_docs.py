"""Every command and program of the README and docs/ runs, in a folder with `photos/`, `table.csv`
and `x.jpg`."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
from commands import foveate, program

from foveate.lab import LABS

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "README.zh.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "benchmarks/README.md",
]
# written by docs/make_networks.py; small programs
NETWORKS = sorted((ROOT / "docs/networks").glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SLOW = {"compare.md", "finetune.md", "python.md"}  # pages that train for half a minute
COURSE = ROOT / "docs/course"  # its pages take five to thirty seconds, mostly to start commands
LAB_OPTIONS = {"--quick", "--out", "--data", "--seed", "--json", "--quiet"}
SET_UP = ("make demo", "make test")  # the two commands of a fresh machine


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return [
        body for kind, body in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language
    ]


def commands(page: Path) -> list[str]:
    lines = [
        line.split("  #")[0].strip() for body in blocks(page, "bash") for line in body.splitlines()
    ]
    return [line for line in lines if line and line not in SET_UP]


def experiments(page: Path) -> list[list[str]]:
    """What follows `foveate lab` where an experiment is named."""
    words = [shlex.split(command) for command in commands(page)]
    return [line[2:] for line in words if line[:2] == ["foveate", "lab"] and line[2:]]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw_folder, warm_features) -> Path:
    """A folder with two classes of photos and one image, as the pages assume."""
    folder = tmp_path / "desk"
    draw_folder(folder / "drawn", 12, kinds=("blob", "stripes"))
    (folder / "photos").mkdir()
    (folder / "drawn/blob").rename(folder / "photos/cat")
    (folder / "drawn/stripes").rename(folder / "photos/dog")
    (folder / "x.jpg").write_bytes((folder / "photos/cat/001.jpg").read_bytes())
    images = sorted((folder / "photos").rglob("*.*"))
    rows = (f"{p.relative_to(folder)},{p.parent.name}{'|odd' * (int(p.stem) % 2)}" for p in images)
    (folder / "table.csv").write_text("\n".join(["path,label", *rows]))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(p, marks=[pytest.mark.slow] if p.name in SLOW or COURSE in p.parents else [])
        for p in PAGES
        if p not in NETWORKS and (blocks(p, "bash") or blocks(p, "python"))
    ],
    ids=page_name,
)
def test_page_runs(page: Path, desk: Path) -> None:
    for command in commands(page):
        first, *arguments = shlex.split(command)
        assert first == "foveate", f"a bash block holds something else than foveate: {command}"
        if arguments in [["lab", *words] for words in experiments(page)]:
            continue  # tests/lab runs every experiment
        done = foveate(*arguments)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    if found := blocks(page, "python"):
        done = program("\n".join(found))
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [p for p in PAGES if experiments(p)], ids=page_name)
def test_experiments_are_named_as_they_are(page: Path) -> None:
    for name, *options in experiments(page):
        assert name in [*LABS, "all"]
        assert {word for word in options if word.startswith("-")} <= LAB_OPTIONS


@pytest.mark.slow
def test_networks_pages_run() -> None:
    done = program("\n".join(body for page in NETWORKS for body in blocks(page, "python")))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_networks_pages_are_those_that_the_script_writes() -> None:
    pages = runpy.run_path(str(ROOT / "docs/make_networks.py"))["pages"]()
    assert {path.name for path in (ROOT / "docs/networks").iterdir()} == set(pages)
    stale = [
        name
        for name, text in pages.items()
        if (ROOT / "docs/networks" / name).read_text("utf-8") != text
    ]
    assert stale == [], "run: python docs/make_networks.py"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_blocks_name_their_language(page: Path) -> None:
    assert {kind for kind, _ in BLOCK.findall(page.read_text(encoding="utf-8"))} <= {
        "bash",
        "javascript",
        "python",
        "text",
    }


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    prose = BLOCK.sub("", page.read_text(encoding="utf-8"))  # layers[0](x) is no link
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", prose)
    assert [t for t in targets if not (page.parent / t).exists()] == []


def test_readme_starts_with_the_two_set_up_commands() -> None:
    first = blocks(ROOT / "README.md", "bash")[0].splitlines()
    assert tuple(line.split("  ")[0].strip() for line in first) == SET_UP
