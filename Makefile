# Every target does all of the set-up it needs; the ones to know are `make rehearse` and `make test`.

# rustup's folder is often missing from the PATH of cron, CI and clean environments.
CARGO_BIN := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin
ifeq (,$(findstring :$(CARGO_BIN):,:$(PATH):))
export PATH := $(CARGO_BIN):$(PATH)
endif

RELEASE := $(or $(CARGO_TARGET_DIR),$(CARGO_BUILD_TARGET_DIR),target)/release
SECKILL := $(RELEASE)/seckill

# The experiment of `make rehearse`, and further arguments of `seckill run` or `seckill calibrate`.
SCENARIO ?= scenarios/spike.toml
ARGS ?=
# The one measurement of `make bench`; empty means all of them.
BENCH ?=
# Arguments of `seckill gate-power`.
POWER ?=
# The name of the container image of `make image`.
IMAGE ?= seckill

.DEFAULT_GOAL := help
# Seeds of `make mutants` and of `make soak`; every seed of the soak makes a run for each way in which the bugs are tried.
SEEDS ?=

.PHONY: help setup build rehearse shop test mutants soak soak-kill bench calibrate gate-power tool-wrk tool-oha tool-browser image images doctor clean
# The set-up, the build and the tests share one target folder and one package manager.
.NOTPARALLEL:
# Cargo would take `make -j` for an invitation to a job server that the recipes are not part of.
unexport MAKEFLAGS MFLAGS

help:
	@echo 'make rehearse   set up this machine, then rehearse $(SCENARIO): load, faults, checks, report'
	@echo '                (SCENARIO=file for another experiment, ARGS="--seed 7" for arguments of seckill run)'
	@echo 'make shop       set up this machine, then keep a shop open whose page you can buy on (ARGS="--opens-in 10s", PORT=8080)'
	@echo 'make test       set up this machine, then formatting, lints and every test'
	@echo 'make mutants    set up this machine, then every seeded bug under its faults: is it found? (SEEDS=20 for more)'
	@echo 'make soak       set up this machine, then 200 chaos runs of the correct target: is it ever accused?'
	@echo 'make soak-kill  set up this machine, then 1000 rehearsals killed at random moments: is anything left? (TIMES=50 for fewer)'
	@echo 'make bench      set up this machine, then measure the harness itself (BENCH=name for one measurement)'
	@echo 'make calibrate  set up this machine, then hold the harness, oha, wrk and goose against a server with known latencies'
	@echo 'make gate-power set up this machine, then try the regression gate: false alarms, and what it finds (POWER="--more --at-most 20")'
	@echo 'make image      build, then make the container image that generators elsewhere run (IMAGE=name:tag)'
	@echo 'make images     the databases of `--stack containers` as images, where the public ones cannot be pulled'
	@echo 'make doctor     say what is here, what is missing and how to get it; installs nothing'
	@echo 'make setup      the set-up alone: compiler, release build, Postgres server'
	@echo 'make clean      remove what was built; recorded runs and baselines stay'
	@echo
	@echo 'As root on a Debian (also Fedora, Alpine) the set-up installs what is missing; otherwise it prints the exact'
	@echo 'command and the step ends with exit code 20. make itself then ends with 2 and prints the step'"'"'s own code'
	@echo 'as "Error 20"; the codes of a rehearsal (10 SLO missed, 11 consistency violated, ...) appear in the same place.'

build:
	@sh ci/bootstrap.sh
	cargo build --locked --release --workspace --bins

setup: build
	@$(SECKILL) doctor --install

rehearse: setup
	$(SECKILL) run $(SCENARIO) $(ARGS)

shop: setup
	@sh ci/shop.sh $(ARGS)

# Pages are tested in a browser. Without one those tests are left out, and say so.
tool-browser:
	@command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1 || \
	    sh ci/bootstrap.sh chromium || echo 'no browser could be installed; the reason is above' >&2

# Programs and tests are compiled in one go: each by itself would leave a processor idle for minutes.
test: tool-browser
	@sh ci/bootstrap.sh
	cargo build --locked --release --workspace --bins --tests
	@$(SECKILL) doctor --install
	@sh ci/test.sh

mutants: setup
	$(SECKILL) mutants --seeds $(or $(SEEDS),3)

soak: setup
	$(SECKILL) mutants --bug 0 --seeds $(or $(SEEDS),50)

soak-kill: setup
	$(SECKILL) soak-kill --times $(or $(TIMES),1000) $(ARGS)

# oha and wrk are the clients that the generator is compared with. Without one its figures are missing, and the others are not.
tool-wrk:
	@command -v wrk >/dev/null 2>&1 || sh ci/bootstrap.sh wrk || \
	    echo 'wrk could not be installed; the reason is above' >&2

tool-oha:
	@command -v oha >/dev/null 2>&1 || test -x target/tools/bin/oha || { \
	    echo 'building oha, a client to compare with; this takes some minutes, once' >&2; \
	    cargo install oha --locked --root target/tools || echo 'oha could not be built; the reason is above' >&2; \
	}

bench: setup $(if $(BENCH),$(if $(findstring wrk,$(BENCH)),tool-wrk) $(if $(findstring oha,$(BENCH)),tool-oha),tool-wrk tool-oha)
	$(SECKILL) bench $(BENCH)

gate-power: setup
	$(SECKILL) gate-power $(POWER)

calibrate: setup tool-wrk tool-oha
	$(SECKILL) calibrate $(ARGS)

image: build
	@sh ci/image/build.sh $(IMAGE)

images: build
	@sh ci/image/databases.sh

doctor: build
	@$(SECKILL) doctor

clean:
	cargo clean
