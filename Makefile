# Tower. `make demo` renders the demo episode, `make test` checks everything; both set up what they need.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint types schemas docs clean

demo: $(READY)
	$(BIN)/tower render configs/episodes/demo.yaml --out out

test: $(READY) lint types
	$(BIN)/pytest -n 2 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

schemas: $(READY)
	$(BIN)/python -m pipeline.story.schemas

# From a new catalog, which holds the project's own evidence and nothing else.
docs: $(READY)
	folder=$$(mktemp -d) && TOWER_CATALOG_URI=$$folder $(BIN)/tower docs --out docs; rm -rf $$folder

# Installed again only when the pins or the project's own list of needs change.
# torch goes first and by itself: asked for together with others, pip would look past the pinned build.
$(READY): pyproject.toml configs/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c configs/constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c configs/constraints.txt -e '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) out
