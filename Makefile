# The only task runner. `make run` and `make test` need Python >= 3.10, a Rust toolchain and make; the rest comes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PYO3_PYTHON := $(BIN)/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1
CARGO ?= cargo
RUST_SOURCES := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock
# Everything but the bindings, which hold no logic and would have to link libpython.
CRATES := --workspace --exclude vmemmap-python

.PHONY: run build test test-rust test-loom test-aarch64 test-python wheels smoke nightly variants views-table kernels-table mutants cargo-mutants fuzz sanitize arrows bench bench-table bench-profile bench-against bench-peers lint docs clean

run: build
	$(BIN)/vmemmap run

build: $(VENV)/.built

$(VENV)/.created:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; Python 3.10 or later is needed" >&2; exit 1; }
	@command -v $(CARGO) >/dev/null || { echo "make: $(CARGO) not found; a Rust toolchain is needed (https://rustup.rs)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "make: $(PYTHON) is older than 3.10" >&2; exit 1; }
	@# Debian packs ensurepip apart; a pip outside the environment can still fill it.
	@if $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	    $(PYTHON) -m venv --clear $(VENV); \
	elif $(PYTHON) -c 'import pip, venv' 2>/dev/null; then \
	    $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(VENV) install --quiet pip; \
	else \
	    echo "make: this Python cannot make a virtual environment (on Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; \
	fi
	$(BIN)/python -m pip install --quiet 'maturin>=1.9.4,<2'
	@touch $@

$(VENV)/.built: $(VENV)/.created pyproject.toml $(RUST_SOURCES)
	$(BIN)/maturin develop --release --quiet
	@touch $@

# The second build finds everything compiled and only adds the tools.
$(VENV)/.dev: $(VENV)/.created pyproject.toml | $(VENV)/.built
	$(BIN)/maturin develop --release --quiet --extras dev
	@touch $@

$(VENV)/.lint: $(VENV)/.created pyproject.toml | $(VENV)/.built
	$(BIN)/maturin develop --release --quiet --extras dev,lint
	@touch $@ $(VENV)/.dev

$(VENV)/.docs: $(VENV)/.created pyproject.toml | $(VENV)/.built
	$(BIN)/maturin develop --release --quiet --extras docs
	@touch $@

test: test-rust test-loom test-python

# Properties are tried on the same cases everywhere; `make nightly` throws the dice, and prints what it threw.
test-rust: export PROPTEST_RNG_SEED ?= 1
test-rust:
	$(CARGO) test $(CRATES)

# A target directory of its own: another --cfg would rebuild everything back and forth.
test-loom:
	RUSTFLAGS="--cfg loom" $(CARGO) test --release --target-dir target/loom -p vmemmap-machine --test loom_frames

# What depends on the host (memory, locks, stacks, replay) on arm64, built here and run by QEMU's user-mode emulation. It
# shows no weak memory: TCG on x86-64 orders the guest's accesses at least as strongly as the host does. Two tests are
# left out: QEMU before 8.0 keeps a record for each page of a mapping, and those of 16 TiB fill the host.
QEMU ?= qemu-aarch64
AARCH64 := aarch64-unknown-linux-gnu
test-aarch64: export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER := aarch64-linux-gnu-gcc
test-aarch64: export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER := timeout 600 $(QEMU) -L /usr/aarch64-linux-gnu
test-aarch64: export CARGO_PROFILE_DEV_DEBUG := 0
test-aarch64:
	@command -v aarch64-linux-gnu-gcc $(QEMU) >/dev/null || { echo "make: a cross linker and $(QEMU) are needed (CONTRIBUTING.md names the packages)" >&2; exit 1; }
	@test -d "$$(rustc --print sysroot)/lib/rustlib/$(AARCH64)" || { echo "make: the target's std is missing: rustup target add $(AARCH64)" >&2; exit 1; }
	$(CARGO) test --locked --target $(AARCH64) --target-dir target/aarch64 -p vmemmap-machine --test native --test checked \
	    -- --skip tebibytes
	$(CARGO) test --locked --target $(AARCH64) --target-dir target/aarch64 -p vmemmap-explore --lib --test traces
	$(CARGO) test --locked --target $(AARCH64) --target-dir target/aarch64 -p vmemmap-lab --test environment_replay

# A wheel for each of x86-64 and arm64 into dist/, and the sdist. The arm64 one needs the same cross linker and std.
wheels: $(VENV)/.created
	PYO3_NO_PYTHON=1 $(BIN)/maturin build --release --locked --out dist --sdist
	PYO3_NO_PYTHON=1 CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
	    $(BIN)/maturin build --release --locked --out dist --target $(AARCH64)

# The wheel and the sdist of this host, each in an empty environment of its own.
smoke: $(VENV)/.created
	rm -rf target/smoke && mkdir -p target/smoke
	$(BIN)/maturin build --release --locked --out target/smoke/dist --sdist
	for file in target/smoke/dist/*.whl target/smoke/dist/*.tar.gz; do \
	    rm -rf target/smoke/env && $(PYTHON) -m venv target/smoke/env && target/smoke/env/bin/python -m pip install --quiet "$$file" && \
	    (cd target/smoke && env/bin/python -m vmemmap --version && env/bin/vmemmap explore R6 --json > /dev/null && \
	    env/bin/vmemmap layout > /dev/null && env/bin/python -c "import vmemmap; vmemmap.Machine(boot_memory='256M').ptdump()") || exit 1; \
	done

test-python: arrows
	$(BIN)/python -m pytest -n 2 --dist loadfile tests

# Larger runs of what `make test` samples (docs/search.md, §4.4): about an hour.
nightly: $(VENV)/.built $(VENV)/.dev
	$(CARGO) test --release -p vmemmap-explore -p vmemmap-lab --test soundness --test soundness_world -- --ignored --nocapture
	$(CARGO) test --release -p vmemmap-litmus --test random -- --ignored
	VMEMMAP_CHECK_SECONDS=7200 $(BIN)/python -m pytest -s --timeout 0 tests/scenarios/test_reductions.py
	VMEMMAP_ALL_DEPTHS=1 $(BIN)/python -m pytest -s --timeout 0 tests/campaign/test_parts.py
	VMEMMAP_KILLS=50 $(BIN)/python -m pytest -s --timeout 0 tests/campaign/test_killed.py
	VMEMMAP_ALL_HOSTS=1 $(BIN)/python -m pytest --timeout 0 tests/scenarios/test_hosts.py
	$(BIN)/python benches/kernels_table.py --against
	seed=$$(od -An -N4 -tu4 /dev/urandom | tr -d ' '); echo "PROPTEST_RNG_SEED=$$seed"; \
	    PROPTEST_RNG_SEED=$$seed PROPTEST_CASES=5000 $(CARGO) test --release -p vmemmap-image -p vmemmap-kernel -p vmemmap-lab
	for round in 1 2 3 4 5 6 7 8 9 10; do \
	    VMEMMAP_RANDOM=1 $(BIN)/python -m pytest -q --timeout 0 $$(grep -rl "from hypothesis" tests --include="test_*.py") || exit 1; \
	done

# The corpus in weak memory beside sequentially consistent memory (docs/memory-model.md).
views-table: $(VENV)/.built
	$(BIN)/python benches/views.py

# Every variant explored again and compared with the table that is kept; WRITE=1 keeps the new one.
VARIANTS := docs/variants.tsv
variants: $(VENV)/.built
	$(BIN)/python benches/variants.py $(if $(WRITE),--write,--against) $(VARIANTS)

# Faults of algorithms, of oracles and of the search, put into a copy one at a time: which test kills each. The recorded
# killer first, seconds each; ONLY="NAME …" tries some, RECORD=1 writes new killers into the list.
mutants: $(VENV)/.built $(VENV)/.dev
	$(BIN)/python benches/mutants.py $(addprefix --only ,$(ONLY)) $(if $(RECORD),--record)

# Needs `cargo install --locked cargo-mutants`. A sample of one crate, or of each; SHARD=K/N takes another, seconds to
# minutes a mutant. What lives has to be listed in benches/equivalent_mutants.toml.
CRATE ?= arch image kernel machine
cargo-mutants: $(VENV)/.built $(VENV)/.dev
	for crate in $(CRATE); do $(BIN)/python benches/cargo_mutants.py $$crate $(if $(SHARD),--shard $(SHARD)) || exit 1; done

# Needs nightly with its rust-src (std is instrumented too: else every Arc of it is a report) and valgrind. Two tests are
# left out: ThreadSanitizer's shadow leaves no room for 16 TiB. Python's own reports are not ours: a stack that names the
# extension or a file in Rust is.
TSAN := RUSTFLAGS="-Zsanitizer=thread" $(CARGO) +nightly test -Zbuild-std --target x86_64-unknown-linux-gnu --target-dir target/tsan
MEMCHECK_LOG := target/memcheck.log
sanitize: $(VENV)/.built $(VENV)/.dev
	$(TSAN) -p vmemmap-kernel --test threads
	$(TSAN) -p vmemmap-machine --test native --test checked -- --skip tebibytes
	PYTHONMALLOC=malloc valgrind --error-limit=no --log-file=$(MEMCHECK_LOG) \
	    $(BIN)/python -m pytest -q --timeout 0 tests/api/test_machine.py -k "not ctrl_c and not loaded_machine"
	@if grep -nE '_core\.|\.rs:[0-9]' $(MEMCHECK_LOG); then echo "make: memcheck reports the extension ($(MEMCHECK_LOG))" >&2; exit 1; fi

# The tables of docs/kernels.md, found again: every kernel behaviour against every race, one exploration each. CHECK=1 only compares.
kernels-table: $(VENV)/.built
	$(BIN)/python benches/kernels_table.py $(if $(CHECK),--against)

# Needs a nightly toolchain, a C++ compiler and `cargo install cargo-fuzz`. `make test` runs the same functions with proptest
# (rust/lab/tests/fuzzed.rs), on any toolchain. No allocation may be larger than 100 MB. What Python reads (vmcores, traces,
# campaigns) is tried by hypothesis, each time with other cases. FUZZ_SECONDS=36000 is a night.
# `sequential` boots four machines for each input and looks for a difference: it is run without AddressSanitizer, which
# makes it several times slower. What it runs is under valgrind and ThreadSanitizer in `make sanitize`.
FUZZ_SECONDS ?= 60
FUZZ_FLAGS := -max_len=16384 -malloc_limit_mb=100 -rss_limit_mb=2048 -timeout=60 -print_final_stats=1
FUZZ_PYTHON := tests/image/test_hostile_files.py tests/image/test_hostile_vmcores.py tests/cli/test_hostile_traces.py \
    tests/litmus/test_command.py tests/campaign/test_campaign_spec.py
fuzz: $(VENV)/.built $(VENV)/.dev
	mkdir -p fuzz/corpus/ptdump_text fuzz/corpus/table_image fuzz/corpus/sequential
	for text in tests/captures/*/*.ptdump.txt; do cp "$$text" "fuzz/corpus/ptdump_text/$$(echo "$$text" | tr / -)"; done
	cp fuzz/seeds/table_image/* fuzz/corpus/table_image
	cp fuzz/seeds/sequential/* fuzz/corpus/sequential
	for target in ptdump_text table_image; do \
	    $(CARGO) +nightly fuzz run $$target -- $(FUZZ_FLAGS) -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done
	$(CARGO) +nightly fuzz run -s none sequential -- $(FUZZ_FLAGS) -max_total_time=$(FUZZ_SECONDS)
	end=$$(($$(date +%s) + $(FUZZ_SECONDS))); while [ $$(date +%s) -lt $$end ]; do \
	    VMEMMAP_RANDOM=1 $(BIN)/python -m pytest -q --timeout 0 $(FUZZ_PYTHON) || exit 1; \
	done

arrows: $(VENV)/.built $(VENV)/.dev
	$(BIN)/lint-imports

bench: $(VENV)/.built $(VENV)/.dev
	$(BIN)/vmemmap bench
	$(BIN)/python -m pytest benches --benchmark-enable --benchmark-only
	$(BIN)/python benches/peers/run.py --need-spin --seconds 5

# The table of docs/performance.md, as a whole, with commit and host. On a quiet host.
bench-table: $(VENV)/.built
	$(BIN)/python benches/table.py

# Where the samples of each row fall, by perf, into docs/performance.md. Builds the rows with debug information.
bench-profile: $(VENV)/.built
	$(BIN)/python benches/profile.py --docs

# Old, new and their ratio for each row, beside a build of another commit; fails if a row is worse by more than the margin.
# ROWS="--rows populate exchange" takes only these; benches/against.py says the rest.
bench-against: $(VENV)/.built
	@test -n "$(COMMIT)" || { echo "make: bench-against needs COMMIT=…, the commit to compare with" >&2; exit 2; }
	$(BIN)/python benches/against.py $(COMMIT) $(ROWS)

# The comparison with Spin, loom and shuttle. PEERS="--seconds 60 --docs" measures longer and fills the tables of the docs.
bench-peers: $(VENV)/.built
	$(BIN)/python benches/peers/run.py $(PEERS)

lint: $(VENV)/.built $(VENV)/.lint arrows
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(BIN)/ruff check python tests benches examples
	$(BIN)/pydoclint python/vmemmap
	$(BIN)/pyright

# One site, site/index.html: docs/, the Python names from their docstrings, the crates under rust/. Warnings are errors, and nothing
# in it is loaded from elsewhere.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@if grep -rlE '<(script|link|img|iframe)[^>]*(src|href)="(https?:)?//' site --include='*.html'; then \
	    echo "make: these pages load something from the network" >&2; exit 1; \
	fi
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(CRATES) --no-deps
	cp -r target/doc site/rust

clean:
	rm -rf $(VENV) target build dist site fuzz/target fuzz/corpus fuzz/artifacts vmemmap-report .pytest_cache .hypothesis .ruff_cache .benchmarks
	find python -name '*.so' -delete
	find python tests -name __pycache__ -prune -exec rm -rf {} +
