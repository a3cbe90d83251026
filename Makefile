# The same commands locally and in CI. Everything lives in .venv; `rm -r .venv` starts over.

PYTHON ?= python3
BIN := .venv/bin
SUITE := $(BIN)/pytest -n auto --dist worksteal
# without bf16 where this one has it, with it elsewhere
OTHER := $(if $(shell grep -m 1 avx512_bf16 /proc/cpuinfo 2>/dev/null),avx2 avx512f,avx2 avx512f avx512_bf16 amx_bf16)

# else every process compiles the package once more, and each of pytest's rewrites 200 files
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow check bench docs site dist clean

demo: .venv/installed  ## train on real digits that are installed with the package, show the result
	$(BIN)/foveate demo

test: .venv/installed  ## the suite, but for what is slow
	$(SUITE) -m "not slow"

test-slow: .venv/installed  ## what is slow; then precision, as on the other kind of processor
	$(SUITE) --durations 10 -m slow tests
	FOVEATE_INSTRUCTIONS="$(OTHER)" $(SUITE) --durations 10 -m "precision and not slow" tests

check: .venv/installed  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed  ## DATA=folder with train, validation and test; psutil and timm come with the extra test
	$(BIN)/python benchmarks/transfer.py $(DATA)

docs: .venv/installed  ## run every block of the README and of docs/
	$(BIN)/pytest tests/test_docs.py

site: .venv/installed  ## the docs as a site, in site/; its search needs a server: python -m http.server -d site
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

dist: .venv/installed  ## wheel and source distribution, in dist/; tests/test_dist.py looks into them
	$(BIN)/python -m hatchling build

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

clean:
	rm -rf .venv dist site runs .pytest_cache .mypy_cache .ruff_cache
