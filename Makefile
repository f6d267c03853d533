# SPDX-License-Identifier: Apache-2.0
# Two commands: `sudo make demo` and `sudo make test`. Each sets up first what is missing.

PYTHON := python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check

DISTRIBUTIONS := $(sort $(wildcard */pyproject.toml plugins/*/pyproject.toml))
WITH_BPF      := $(patsubst %/pyproject.toml,%,$(shell grep -l 'hooks.emptcp' $(DISTRIBUTIONS)))

BENCHMARKS := chain bystander ops tables flows granularity throughput cpu early-drop control events verifier
ANSWERS    := docs/reference/bench

.DELETE_ON_ERROR:
.PHONY: help setup system objects demo test soak vm bench clean

help:
	@echo "make setup   Debian packages (as root), .venv, all packages editable, BPF objects"
	@echo "make demo    setup, then the lab: a policy steers a live MPTCP transfer (as root)"
	@echo "make test    setup, then tox: lint, unit, kernel, traffic, soak, packaging, vm-6.1 (as root)"
	@echo "make soak    setup, then random changes under 200 connections for ten minutes (as root)"
	@echo "make vm      setup, then tox on other kernels: 5.10, 6.1, 6.12, 7, and on arm64, in QEMU without KVM"
	@echo "make bench   setup, then what packets and changes cost on this machine: docs/performance.md (as root)"
	@echo "make clean   remove environments, caches and objects"

setup: objects

demo: setup
	$(BIN)/emptcp lab run two-path

test: setup
	@tools/debian-packages qemu-system-x86 mptcpd libmptcpd3-dev libc6-dev systemd
	$(BIN)/tox

soak: setup
	EMPTCP_SOAK_SECONDS=$${EMPTCP_SOAK_SECONDS:-600} $(BIN)/tox -e soak

vm: setup
	@tools/debian-packages qemu-system-x86 qemu-system-arm
	$(BIN)/tox -e vm-5.10,vm-6.1,vm-6.12,vm-7,vm-arm64

# An answer takes the former one's place when it is whole.
bench: setup
	@tools/debian-packages mptcpd libmptcpd3-dev libc6-dev nftables
	@mkdir -p $(ANSWERS)
	@set -e; for name in $(BENCHMARKS); do \
	    echo "emptcp bench $$name"; \
	    $(BIN)/emptcp bench $$name --json > $(ANSWERS)/$$name.new; \
	    mv $(ANSWERS)/$$name.new $(ANSWERS)/$$name.json; \
	done
	$(BIN)/emptcp bench page $(ANSWERS) > docs/performance.md

system:
	@tools/debian-packages

$(VENV)/.stamp-created: | system
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "emptcp needs Python 3.11 or later")'
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.stamp-tools: pyproject.toml $(VENV)/.stamp-created
	@echo "installing the tools of the workspace"
	@$(PIP) --group dev
	@touch $@

$(VENV)/.stamp-installed: tools/install.py $(DISTRIBUTIONS) $(VENV)/.stamp-tools
	@echo "installing the distributions, editable"
	@$(BIN)/python tools/install.py
	@touch $@

# No stamp: the build compares what it read with the record beside each object, in a tenth of a second.
objects: system $(VENV)/.stamp-installed
	@$(BIN)/emptcp-sdk build $(WITH_BPF)

clean:
	rm -rf $(VENV) .tox .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	rm -rf dist */dist plugins/*/dist
	find core bpf_common sdk bench plugins tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
	find bench core plugins \( -name '*.bpf.o' -o -name '*.bpf.json' \) -delete
