# What a machine lacks is installed: system packages by apt, Python packages into .venv.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	then echo $$python; break; fi; done)
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := git openssh-client nginx-light libnginx-mod-http-lua lua-resty-core bubblewrap python3-venv ruby ruby-bundler ruby-webrick ruby-rack nodejs npm
LXC_PACKAGES := lxc mmdebstrap nftables conntrack iproute2 curl
TEST_PACKAGES := openssh-server git-lfs skopeo umoci docker-registry rsync slapd pebble sslscan chromium wrk $(LXC_PACKAGES)
# More than there are processors: a voyage waits more than it computes.
WORKERS := 4
# Most of what a ship's start takes is its import: bytecode is kept, whatever the caller says.
unexport PYTHONDONTWRITEBYTECODE
ROOMS := receiver hooks containers buildpacks proxy

.PHONY: demo test voyages check lint bench clean

# RUNTIME=lxc for real containers.
RUNTIME ?= process
demo: $(VENV)/installed .packages $(if $(filter lxc,$(RUNTIME)),.lxc-packages)
	STARPHLEET_RUNTIME=$(RUNTIME) $(BIN)/starphleet demo

test: $(VENV)/developed .packages .test-packages
	$(BIN)/pytest -n $(WORKERS)

voyages: $(VENV)/developed .packages .test-packages
	VOYAGES_EVERYTHING=1 $(BIN)/pytest -n $(WORKERS) tests/voyages

check: lint test

lint: $(VENV)/developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/developed .packages .test-packages
	$(BIN)/python -m tests.bench

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or newer is needed: apt-get install python3'; exit 1; }
	overlay/usr/share/starphleet/packages python3-venv
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/developed: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

.PHONY: .packages .lxc-packages .test-packages
.packages:
	@overlay/usr/share/starphleet/packages $(PACKAGES)
.lxc-packages:
	@overlay/usr/share/starphleet/packages $(LXC_PACKAGES)
.test-packages:
	@overlay/usr/share/starphleet/packages $(TEST_PACKAGES)

clean:
	rm -rf $(VENV) build *.egg-info
