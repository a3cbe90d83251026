"""What is shipped: the wheel and the source distribution, as hatchling builds them here."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OF_DEVELOPERS = ("test", "course", "docs", "browser", "oracles")  # installed by nobody else


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    without = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(build, cwd=ROOT, env=without, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower()


def test_the_wheel_holds_the_package_its_types_and_its_licences(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    version = PROJECT["version"]
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = Parser().parsestr(archive.read(f"foveate-{version}.dist-info/METADATA").decode())
    pages = "*.py", "*.html", "*.js", "*.css", "*.svg", "*.txt"
    files = [path for kind in pages for path in (ROOT / "foveate").rglob(kind)]
    sources = {path.relative_to(ROOT).as_posix() for path in files}
    added = {f"foveate-{version}.dist-info/licenses/{name}" for name in ("LICENSE", "NOTICE")}
    assert names >= sources | added | {"foveate/py.typed"}
    outside = {name for name in names - sources - {"foveate/py.typed"} if ".dist-info/" not in name}
    assert not outside, "neither weights nor binaries nor tests"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra")) == set(EXTRAS)
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_the_source_distribution_holds_what_its_tests_need(built: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = ["LICENSE", "NOTICE", "README.md", "Makefile", "pyproject.toml", "docs/train.md"]
    assert names >= {*needed, "tests/cli_surface.txt", "benchmarks/transfer.py", "foveate/py.typed"}
    assert not [name for name in names if name.startswith((".venv", ".git/", "runs/", "dist/"))]


def test_the_version_is_one() -> None:
    import foveate

    version = PROJECT["version"]
    assert foveate.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\n## {version}, " in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_notice_names_every_package_that_is_installed_with_foveate() -> None:
    wanted = [*PROJECT["dependencies"]]
    wanted += [r for extra, rs in EXTRAS.items() if extra not in OF_DEVELOPERS for r in rs]
    listed = re.findall(r"^([a-z][\w.-]+) {2,}\S", (ROOT / "NOTICE").read_text(), re.MULTILINE)
    assert {name_of(r) for r in wanted} == set(listed) - {"package"}


def test_every_extra_is_named_where_it_is_needed() -> None:
    """An extra exists with the code that asks for it."""
    code = "".join(path.read_text() for path in (ROOT / "foveate").rglob("*.py"))
    for extra in set(EXTRAS) - set(OF_DEVELOPERS):
        assert f"foveate[{extra}]" in code or f'extra="{extra}"' in code, extra


def test_every_extra_is_resolved_in_ci() -> None:
    assert f"[{','.join(sorted(EXTRAS))}]" in (ROOT / ".ci" / "run").read_text()


def test_what_is_installed_agrees() -> None:
    """`pip check`, of Foveate's own requirements."""
    from packaging.requirements import Requirement

    for text in PROJECT["dependencies"]:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate():
            installed = distribution(requirement.name).version
            assert requirement.specifier.contains(installed, prereleases=True), text
    for text in (r for requirements in EXTRAS.values() for r in requirements):
        requirement = Requirement(text)
        try:
            installed = distribution(requirement.name).version
        except PackageNotFoundError:
            continue
        assert requirement.specifier.contains(installed, prereleases=True), text
