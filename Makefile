# SPDX-License-Identifier: GPL-2.0-or-later
# The only entry point. `make help` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BUILD := build
JOBS := $(shell nproc)
export HOME ?= /root
export FERRY_CACHE ?= $(HOME)/.cache/ferry
LAB := tests/lab/lab

# What was compiled once need not be compiled again, in whatever directory the clone lies.
export CCACHE_DIR := $(abspath $(FERRY_CACHE))/ccache
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1
export CCACHE_MAXSIZE := 1G
LAUNCHER = $(if $(shell command -v ccache),-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)

# Everything that building, testing and the lab need on a fresh Debian 12.
PACKAGES := build-essential ccache cmake ninja-build pkg-config python3 git ca-certificates \
  libvirt-dev libxml2-dev libnl-3-dev libnl-genl-3-dev libboost-program-options-dev liburing-dev libssl-dev \
  libzstd-dev liblz4-dev libxxhash-dev libspdlog-dev libfmt-dev nlohmann-json3-dev libcpp-httplib-dev \
  libdevmapper-dev libblkid-dev libsqlite3-dev libsystemd-dev libgtest-dev libgmock-dev \
  clang libclang-rt-14-dev scdoc openssl curl shellcheck pyflakes3 \
  mmdebstrap qemu-system-x86 qemu-utils busybox-static openssh-client cpio kmod zstd xz-utils e2fsprogs \
  bc flex bison libelf-dev dwarves sparse coccinelle iproute2

##@ Start here
.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: deps ## move a running VM between two emulated hosts, check everything, print the result
	@$(MAKE) --no-print-directory stage
	@tests/demo

.PHONY: test
test: deps ## all tests that guard a promise (unit, fuzz, kernel suite, migrations in the lab)
	@tests/run-all

##@ Build
.PHONY: deps
deps: ## install the Debian packages that are missing (needs root)
	@missing=""; for p in $(PACKAGES); do \
	  dpkg-query -W -f='$${db:Status-Status}\n' $$p 2>/dev/null | grep -qx installed || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  { apt-get install -qy --no-install-recommends $$missing || \
	    { apt-get update -q && apt-get install -qy --no-install-recommends $$missing; }; } >/tmp/ferry-deps.log 2>&1 || \
	  { tail -20 /tmp/ferry-deps.log; echo "make deps: apt-get failed (are you root?)" >&2; exit 1; }; fi

$(BUILD)/build.ninja: CMakeLists.txt
	@cmake -S . -B $(BUILD) -G Ninja $(LAUNCHER) >$(BUILD).cmake.log 2>&1 || { cat $(BUILD).cmake.log; exit 1; }
	@mv $(BUILD).cmake.log $(BUILD)/cmake.log

.PHONY: build
build: $(BUILD)/build.ninja ## the programs and their tests (CMake, Ninja)
	@ninja -C $(BUILD) --quiet

# What is installed, without tests: whoever only wants to see it run waits half as long.
.PHONY: programs
programs: $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet ferryd migrate-ctl ctl_completion ctl_man

.PHONY: kmod
kmod: ## dm-ferry.ko for both Debian kernels of the lab, and the race test's negative control
	@tests/kmod/build-modules $(BUILD)/kmod

.PHONY: stage
stage: programs kmod ## everything installed under build/stage, as the lab's hosts see it
	@rm -rf $(BUILD)/stage && DESTDIR=$(CURDIR)/$(BUILD)/stage cmake --install $(BUILD) --prefix /usr --strip >$(BUILD)/install.log
	@tests/kmod/build-modules --stage $(BUILD)/kmod $(BUILD)/stage

.PHONY: dkms-install
dkms-install: ## give the module to DKMS: built for each kernel with headers, now and later (needs root, dkms)
	@kmod/dkms-install

##@ Test
.PHONY: check
check: build ## unit tests: seconds, no root, no emulation
	@ctest --test-dir $(BUILD) --output-on-failure -j$(JOBS) --no-tests=error

.PHONY: fuzz
fuzz: ## the frame parser under libFuzzer for FUZZ_SECONDS (20)
	@tests/fuzz/run $${FUZZ_SECONDS:-20}

.PHONY: kernel-suite
kernel-suite: build stage ## the filter in the lab's kernels, with the negative control (KERNEL=6.1, 6.12, 5.10, 7, kasan, kcsan)
	@tests/kmod/run $${KERNEL:-6.1}

.PHONY: test-long
test-long: deps ## the same and the migrations on 6.12, four more kernels (two of them debug kernels), DKMS, long fuzzing
	@FERRY_LONG=1 tests/run-all

.PHONY: lint
lint: deps ## scripts and limits of the house; sparse, checkpatch and coccinelle on the module
	@tests/lint
	@tests/kmod/static-checks

##@ Bench
.PHONY: bench
bench: deps build stage ## instructions per I/O of the filter on both kernels -> build/results/cost.json
	@bench/cost

##@ Lab
.PHONY: lab
lab: deps stage ## two hosts to play with; says how to log in
	@$(LAB) up

.PHONY: lab-down
lab-down: ## ends them
	@$(LAB) down

##@ Other
.PHONY: clean
clean: ## remove build/ (caches stay in FERRY_CACHE)
	@rm -rf $(BUILD)
