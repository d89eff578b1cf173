# The two commands of the README. `make run ARGS="--keep"` passes words on to `slicewise run`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: run test lint types install images policy clean

install: $(VENV)/.installed

# The lock file pins every version; the project itself is installed in place, without resolving anything anew.
$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

run: install
	$(BIN)/slicewise run --mode smoke $(ARGS)

# One process a core and one thread a process; a file's tests stay together, as they share their servers.
test: lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

# With docker, podman or buildah; ARGS names some of pipeline, predictor, gateway.
images:
	images/build.sh $(ARGS)

# checkov over the built overlays and the Dockerfiles; policy/checkov.yaml names the exceptions.
POLICY := .venv-policy
$(POLICY)/.installed: policy/requirements.txt
	$(PYTHON) -m venv $(POLICY)
	$(POLICY)/bin/python -m pip install --quiet --disable-pip-version-check -r policy/requirements.txt
	@touch $@

policy: install $(POLICY)/.installed
	$(BIN)/python policy/render.py build/policy
	$(POLICY)/bin/checkov --config-file policy/checkov.yaml --framework kubernetes -d build/policy
	$(POLICY)/bin/checkov --config-file policy/checkov.yaml --framework dockerfile -d images

clean:
	rm -rf $(VENV) $(POLICY) .mypy_cache .ruff_cache .pytest_cache
