# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
# Real fields of nuclei for the demo and for the tests of accuracy; without them, others from a package are taken.
DATA ?= ../shared/data/nuclei_fluorescence
SOURCES := $(shell find pipeline flows -type f -not -name '*.pyc' -not -path 'pipeline/viewer/src/*' 2>/dev/null)

.PHONY: venv demo test quick lint bench load faults fuzz networks corpus audit viewer lock clean

venv: .venv/installed

# The lock first, then seamfree itself, not editable: what is tested is what is installed.
.venv/ready: requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	touch $@

.venv/installed: .venv/ready pyproject.toml README.md $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall .
	touch $@

demo: venv
	$(BIN)/python tests/demo.py --data "$(DATA)" --output demo

# Many tests wait for processes most of their time, and others meanwhile work. The tests of a file share what they set
# up, and stay together.
JOBS ?= 2
PYTEST := $(BIN)/pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

test: venv
	$(PYTEST)

quick: venv
	$(PYTEST) -m "not slow"

lint: venv
	$(BIN)/ruff check pipeline flows tests
	$(BIN)/ruff format --check pipeline flows tests
	$(BIN)/mypy

# Programs that seamfree is compared with, in an environment of their own.
PEERS := .venv-peers
$(PEERS)/ready: tests/benchmarks/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	touch $@

bench: venv $(PEERS)/ready
	$(BIN)/python -m tests.benchmarks.peers --peers $(PEERS)/bin/python
	$(BIN)/python tests/benchmarks/volume.py
	$(BIN)/python tests/benchmarks/slide.py
	$(BIN)/python tests/benchmarks/throughput.py
	$(BIN)/python tests/benchmarks/memory.py
	$(BIN)/python tests/benchmarks/labels.py
	$(BIN)/python tests/benchmarks/sliding.py
	$(BIN)/python tests/benchmarks/deriving.py
	$(BIN)/python tests/benchmarks/viewer.py
	$(BIN)/python tests/benchmarks/startup.py
	$(BIN)/python tests/benchmarks/scaling.py

# Very many tiles, and very many images: what each costs, and whether memory grows. A quarter of an hour.
load: venv
	$(BIN)/python tests/benchmarks/many_tiles.py
	$(BIN)/python tests/benchmarks/many_images.py

# Kills the driver, workers and servers, and runs again until done: `make faults TRIALS=25 SEED=7`. Some minutes for 25.
TRIALS ?= 300
faults: venv
	$(BIN)/python -m tests.faults --trials $(TRIALS) $(if $(SEED),--seed $(SEED))

# Inputs made to find what opening files does not stand: `make fuzz RUNS=100000 SEED=2`.
RUNS ?= 20000
fuzz: venv
	$(BIN)/python -m tests.fuzz --runs $(RUNS) $(if $(SEED),--seed $(SEED))

# What is derived of networks, against what single pixels and tiles show of them: `make networks NETWORKS=50 SEED=3`.
NETWORKS ?= 400
networks: venv
	$(BIN)/python -m tests.models.test_table
	$(BIN)/python -m tests.test_packages
	$(BIN)/python -m tests.models.drawn_trials --networks $(NETWORKS) $(if $(SEED),--seed $(SEED))

# Bad input, and what a user is told of it.
corpus: venv
	$(BIN)/python -m tests.corpus.table

# Known vulnerabilities of what the lock installs, by a database that you have: `make audit DATABASE=all.zip`.
audit: venv
	@$(BIN)/python -m tests.vulnerabilities $(DATABASE)

# The page of `seamfree view`, from its sources and the packages of its lock. Needs npm; nothing else here does.
viewer:
	npm --prefix pipeline/viewer/src ci --ignore-scripts
	npm --prefix pipeline/viewer/src run build

# Resolves the ranges of pyproject.toml anew. torch stands first: with it, no other build of it is fetched.
lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet torch==2.13.0
	.venv-lock/bin/python -m pip install --quiet ".[dev]" hatchling
	# Of these nothing but real images is wanted, for tests.
	.venv-lock/bin/python -m pip install --quiet --no-deps stardist PartSegData
	.venv-lock/bin/python -m pip freeze --exclude seamfree | sed -e 's/+cpu$$//' \
		-e "s/^atheris==.*/&; sys_platform == 'linux' and platform_machine == 'x86_64' and python_version < '3.14'/" \
		> requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf .venv .venv-lock .venv-peers demo pipeline/viewer/src/node_modules
