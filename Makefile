# What a machine lacks is installed: system packages by apt, Python packages into .venv.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	then echo $$python; break; fi; done)
VENV := .venv
BIN := $(VENV)/bin
SHARE := overlay/usr/share/starphleet
PACKAGES := $(shell cat $(SHARE)/packages.ship)
LXC_PACKAGES := $(shell cat $(SHARE)/packages.lxc)
TEST_PACKAGES := openssh-server git-lfs skopeo umoci docker-registry rsync slapd pebble sslscan chromium wrk prometheus systemd-container vagrant zsh fish mandoc groff-base $(LXC_PACKAGES)
# Thrice as many as there are processors: a voyage waits more than it computes.
WORKERS := 6
# Most of what a ship's start takes is its import: bytecode is kept, whatever the caller says.
unexport PYTHONDONTWRITEBYTECODE
SUDO := $(shell [ $$(id -u) = 0 ] || echo sudo -E)
ROOMS := receiver hooks containers buildpacks proxy

.PHONY: demo install test voyages check lint bench clean

# RUNTIME=lxc for real containers.
RUNTIME ?= process
demo: $(VENV)/installed .packages $(if $(filter lxc,$(RUNTIME)),.lxc-packages)
	STARPHLEET_RUNTIME=$(RUNTIME) $(BIN)/starphleet demo

# OPTIONS='--headquarters URL --key ann.pub': a ship of this host, see docs/install.md.
install: $(VENV)/installed
	$(SUDO) $(BIN)/starphleet install $(OPTIONS)

# EVERYTHING=1: what takes long too, and loads of containers as large as those of processes.
EVERYTHING ?=
test: $(VENV)/developed .packages .test-packages .axe .cloud-init
	EVERYTHING=$(EVERYTHING) $(BIN)/pytest -n $(WORKERS)

voyages: $(VENV)/developed .packages .test-packages
	EVERYTHING=1 $(BIN)/pytest -n $(WORKERS) tests/voyages

# The types are checked beside the tests, which leave a processor idle now and then.
check: $(VENV)/developed .packages .test-packages .axe .cloud-init
	@$(MAKE) --no-print-directory -j2 lint test

lint: $(VENV)/developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/developed .packages .test-packages
	$(BIN)/python -m tests.bench

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or newer is needed: apt-get install python3'; exit 1; }
	overlay/usr/share/starphleet/packages python3-venv
	$(PYTHON) -m venv $(VENV)

# uv installs in a fraction of pip's time; where packages come from it reads in UV_DEFAULT_INDEX.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
UV := $(BIN)/uv --quiet pip install --python $(BIN)/python --compile-bytecode --constraint constraints.txt
$(BIN)/uv: constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --constraint constraints.txt uv
	touch $@

$(VENV)/installed: pyproject.toml constraints.txt $(BIN)/uv
	$(UV) --editable .
	touch $@

$(VENV)/developed: $(VENV)/installed
	$(UV) --editable '.[dev]'
	touch $@

.PHONY: .packages .lxc-packages .test-packages .axe
.packages:
	@overlay/usr/share/starphleet/packages $(PACKAGES)
.lxc-packages: .packages
	@overlay/usr/share/starphleet/packages $(LXC_PACKAGES)
.test-packages: .packages
	@overlay/usr/share/starphleet/packages $(TEST_PACKAGES)

# What reads the dashboard as somebody would who does not see it.
AXE := 4.14.1
.axe: build/axe/$(AXE)
build/axe/$(AXE): | .packages
	npm install --silent --no-save --no-audit --no-fund --prefix build/axe axe-core@$(AXE)
	touch $@

# What reads the user data of an instance; unpacked and not installed, for it would run at boot.
CLOUD_INIT := cloud-init $(addprefix python3-,attr certifi chardet charset-normalizer configobj idna jinja2 \
	json-pointer jsonpatch jsonschema markupsafe netifaces oauthlib pyrsistent requests six urllib3 yaml)
.PHONY: .cloud-init
.cloud-init: build/cloud-init/unpacked
build/cloud-init/unpacked: | .packages
	rm -rf $(@D) && mkdir -p $(@D)/packages
	$(SUDO) apt-get update --quiet --quiet
	cd $(@D)/packages && apt-get -o APT::Sandbox::User=root download --quiet --quiet $(CLOUD_INIT)
	cd $(@D) && for package in packages/*.deb; do dpkg-deb --extract $$package .; done
	rm -rf $(@D)/packages && touch $@

# What tests keep for a week, too.
clean:
	rm -rf $(VENV) build *.egg-info
	$(SUDO) rm -rf /var/cache/starphleet-tests
