# Tower. `make demo` renders the demo episode, `make check` is what one runs before a commit, `make test` checks everything.
# All of them set up what they need, and nothing more.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-to-render
TESTING := $(VENV)/.ready-to-test
MUTATING := $(VENV)/.ready-to-mutate
MINUTES ?= 30
PINS := configs/constraints.txt

.PHONY: demo check test mutants lint types schemas docs clean

demo: $(READY)
	$(BIN)/tower render configs/episodes/demo.yaml --out out

# In the order of the files' names, which has the slow ones at the front: xdist would keep those with few tests, most of which render,
# for the end, where one worker waits for the other.
test: $(TESTING) lint types
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# Lint, types, and the tests that need neither Ray nor a model.
check: $(TESTING) lint types
	$(BIN)/pytest -n 2 --dist worksteal -m "not ray and not models"

# What the tests notice of changes to the modules that decide (docs/mutants.md). Goes on where it last stopped.
mutants: $(MUTATING)
	$(BIN)/python -m benchmarks.mutants --minutes $(MINUTES)

lint: $(TESTING)
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo > $(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }

types: $(TESTING)
	$(BIN)/mypy

schemas: $(READY)
	$(BIN)/python -m pipeline.story.schemas

# From a new catalog, which holds the project's own evidence and nothing else.
docs: $(READY)
	folder=$$(mktemp -d) && TOWER_CATALOG_URI=$$folder $(BIN)/tower docs --out docs; rm -rf $$folder

# uv installs quicker than pip (docs/benchmarks.md). It does not read pip's settings, so it is told of them, and to treat all indexes
# alike, as pip does. Where uv is not to be had, pip installs.
define install
	@pip() { $(BIN)/pip --disable-pip-version-check "$$@"; }; \
	told() { pip config get ":env:.$$1" 2>/dev/null || pip config get "global.$$1" 2>/dev/null || true; }; \
	if [ -x $(BIN)/uv ] || pip install --quiet -c $(PINS) uv 2>/dev/null; then \
	    set -- --index-strategy unsafe-best-match; \
	    for place in $$(told find-links); do set -- "$$@" --find-links "$$place"; done; \
	    for place in $$(told index-url); do set -- "$$@" --default-index "$$place"; done; \
	    for place in $$(told extra-index-url); do set -- "$$@" --index "$$place"; done; \
	    $(BIN)/uv pip install --quiet --python $(BIN)/python -c $(PINS) "$$@" $(1); \
	else pip install --quiet -c $(PINS) $(1); fi
endef

# The page is tested in a real browser. Without Debian's chromium, and without the right to install it, those tests say that they were skipped.
define browser
	@command -v chromium >/dev/null || { \
	    [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && export DEBIAN_FRONTEND=noninteractive && \
	    { apt-get install -y -qq chromium || { apt-get update -qq && apt-get install -y -qq chromium; }; } >/dev/null 2>&1; \
	} || echo "chromium is not installed: the tests of the page will be skipped"
endef

# Installed again only when the pins or the project's own list of needs change.
# torch goes first and by itself: asked for together with others, an installer would look past the pinned build.
# spandrel goes without its needs: they include torchvision, which PyPI has only for CUDA, and which fails beside a CPU build of torch.
$(READY): pyproject.toml $(PINS)
	$(PYTHON) -m venv $(VENV)
	$(call install,torch==2.13.0)
	$(call install,-e .)
	$(call install,--no-deps spandrel)
	touch $@

$(TESTING): $(READY)
	$(call install,-e '.[dev]')
	$(call browser)
	touch $@

$(MUTATING): $(TESTING)
	$(call install,-e '.[mutants]')
	touch $@

clean:
	rm -rf $(VENV) out .mutants
