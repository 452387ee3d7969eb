# Two commands on a fresh machine: `make demo` and `make test`. Each makes its own virtual
# environment when it is missing, with the exact versions of constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
INPUTS := pyproject.toml constraints.txt
OLDEST := .venv-oldest
AUDIT := .venv-audit

.PHONY: demo test docs test-oldest browser lint format wheel-check fuzz soak audit sbom constraints clean help

help:
	@echo "make demo         translate a real brain with the shipped model, into demo/"
	@echo "make test         run the tests; those of the page need a Chromium (make browser), else skip"
	@echo "make docs         build the documentation as a site, into build/site"
	@echo "make browser      install Debian's Chromium, as root"
	@echo "make test-oldest  run the tests with the lowest versions that pyproject.toml allows (7 GB)"
	@echo "make lint         ruff and mypy"
	@echo "make wheel-check  install the built wheel into an empty environment and translate there"
	@echo "make fuzz         mutate image files for longer than the tests do"
	@echo "make audit        look up known advisories about what medtrans needs to run"
	@echo "make sbom         write dist/sbom.cdx.json, a CycloneDX list of what medtrans needs to run"
	@echo "make soak         kill trainings, fill disks, translate 2000 volumes (an hour)"

demo: $(VENV)/.user
	$(BIN)/medtrans demo --out demo

test: $(VENV)/.developer
	$(BIN)/python -m pytest -n auto --cov --cov-report=term:skip-covered

# Not --quiet: it hides warnings from --strict too.
docs: $(VENV)/.developer
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "build/site/index.html"

test-oldest: $(OLDEST)/.made
	$(OLDEST)/bin/python -m pytest -n auto -o filterwarnings=error:::medtrans

browser:
	command -v chromium || { apt-get update -qq && \
		apt-get install -y -qq --no-install-recommends chromium; }

lint: $(VENV)/.developer
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.developer
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel-check: $(VENV)/.developer
	PYTHON=$(PYTHON) $(BIN)/python tests/wheel_check.py

fuzz: $(VENV)/.developer
	$(BIN)/python -m tests.volumes.fuzz --count 200000

audit: $(VENV)/.user $(AUDIT)/.made
	$(BIN)/python tests/runtime_versions.py > $(AUDIT)/runtime.txt
	$(AUDIT)/bin/python tests/audit.py $(AUDIT)/runtime.txt

sbom: $(VENV)/.user $(AUDIT)/.made
	mkdir -p dist
	$(BIN)/python tests/runtime_versions.py > $(AUDIT)/runtime.txt
	$(AUDIT)/bin/python -W ignore -m cyclonedx_py requirements $(AUDIT)/runtime.txt \
		--pyproject pyproject.toml --output-reproducible -o dist/sbom.cdx.json

soak: $(VENV)/.developer
	$(BIN)/python -m tests.faults.soak

constraints: $(VENV)/.developer
	(echo "# Exact versions that the Makefile and CI install; made by: make constraints"; \
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//') > constraints.txt

$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "medtrans needs Python 3.11 or newer; run: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.user: $(VENV)/.made $(INPUTS)
	$(PIP) -e ".[demo]"
	touch $@

$(VENV)/.developer: $(VENV)/.made $(INPUTS)
	$(PIP) -e ".[demo,tensorboard,bundle,cluster,docs,test,dev]"
	touch $@

$(OLDEST)/.made: pyproject.toml tests/lowest_versions.py
	$(PYTHON) -m venv $(OLDEST)
	$(PYTHON) tests/lowest_versions.py > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c $(OLDEST)/constraints.txt -e ".[demo,tensorboard,bench,bundle,cluster,test]"
	touch $@

$(AUDIT)/.made:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check \
		"pip-audit>=2.10" "cyclonedx-bom>=7.5"
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) $(AUDIT) build dist demo .coverage* .mypy_cache .pytest_cache .ruff_cache
