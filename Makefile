# Every target sets itself up: a machine with Python 3.11+, pip and make is enough.
# UV_TORCH_BACKEND=cpu (or cu128, auto …) chooses the build of torch.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV_INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock

# Where Python may not keep what it compiled, every start compiles anew what it imports: seconds for each of the
# hundreds of processes that the tests start.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo install lavis test test-fast check format lock clean
help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

demo: $(VENV)/.core ## the whole factory on a generated video; no download, no GPU, no account
	$(BIN)/labelmill demo

install: $(VENV)/.all ## everything, in .venv

lavis: $(VENV)/.core ## the environment of `encoder: {kind: lavis}`, ahead of its first use
	$(BIN)/python -m labelmill.environments lavis

test: $(VENV)/.all ## every test, those with real servers and a browser included
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: $(VENV)/.all ## the tests without servers
	$(BIN)/python -m pytest -m "not server" $(PYTEST_ARGS)

check: $(VENV)/.all ## format, lint, types, and the guards of the house
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_house.py

format: $(VENV)/.all ## put the code in form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(VENV)/.uv ## resolve requirements.lock anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-annotate --no-header \
	  --upgrade pyproject.toml --output-file requirements.lock

clean: ## remove the environment
	rm -rf $(VENV)

$(VENV)/.uv: requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock uv
	@touch $@

$(VENV)/.core: $(VENV)/.uv pyproject.toml
	@echo "installing into $(VENV): 1.4 GB, a few minutes the first time"
	$(UV_INSTALL) --editable .
	@touch $@

$(VENV)/.all: $(VENV)/.uv pyproject.toml
	@echo "installing everything into $(VENV): 8 GB with CUDA, far less with UV_TORCH_BACKEND=cpu"
	$(UV_INSTALL) --editable '.[all,dev]'
	@touch $@ $(VENV)/.core
