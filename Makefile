# Where `make install` puts libpyrex; DESTDIR goes before it, for who makes a package.
PREFIX ?= /usr/local

.PHONY: setup setup-cuda demo install test test-c test-vocab test-html test-elixir-slow test-newer test-cuda-build check-cuda kernels gpu-pack dialyzer header bench golden story lint soak fuzz

# Everything the build needs comes with Rust; this fetches the crates, and Elixir for the tests of its package.
setup:
	cargo fetch
	scripts/setup-elixir.sh

# The compiler for `--features cuda`, of Python packages, into .cache/cuda: see docs/cuda.md.
setup-cuda:
	scripts/cuda-toolkit.sh

demo:
	cargo run --release -- generate --image models/shapes/examples/red_circle.png --prompt "Describe this image."

# TEST_FEATURES adds tests that need more than Rust: see tests/Cargo.toml.
test: lint
	cargo test --release --workspace --no-fail-fast $(TEST_FEATURES:%=--features %)
	scripts/test-elixir.sh

lint:
	cargo fmt --all --check
	scripts/check-cuda.sh

# Clippy with `cuda`, without a toolkit or a GPU; what `make lint` does of it.
check-cuda:
	scripts/check-cuda.sh

# The real build with CUDA, and what can be said of it without a GPU. After `make setup-cuda`.
test-cuda-build: setup-cuda
	scripts/test-cuda-build.sh

# The PTX beside the kernels' sources; a test fails while it is older than they are.
kernels: setup-cuda
	scripts/kernels.sh

# What bench/gpu.sh runs on a machine with a GPU and no Rust.
gpu-pack: setup-cuda
	bench/pack.sh

# libpyrex for C and C++. The folder may be moved afterwards.
install:
	scripts/install.sh "$(DESTDIR)$(PREFIX)"

# The C programs under clang's sanitizers and valgrind, and the installed library by pkg-config and CMake; installs what is missing.
test-c:
	scripts/test-c.sh

# Gemma 4's real vocabulary, fetched from a public package into .cache.
test-vocab:
	scripts/test-vocab.sh

# The pages of the report in a browser without a screen, which is installed if there is none.
test-html:
	scripts/test-html.sh

# The Elixir package with a release of an app that depends on it, and 50 exits of a VM with live streams.
test-elixir-slow:
	PYREX_SLOW=1 scripts/test-elixir.sh

# The same on Elixir 1.18 and OTP 27, in a root of Debian trixie under target/; as root.
test-newer:
	scripts/test-newer.sh

# Types of the Elixir package; collects those of OTP first, under target/.
dialyzer:
	scripts/dialyzer.sh

# The server asked by OpenAI's clients, curl and schemathesis, and its pages in a browser; all of them are installed if missing.
test-clients:
	scripts/test-clients.sh

# The test writes what the header should be, and fails if it is not that.
header:
	-cargo test --release --workspace --test header
	cp target/tmp/pyrex.h include/pyrex.h

# Needs nightly Rust and cargo-fuzz; FUZZ_SECONDS for each target, 60 unless set.
fuzz:
	scripts/fuzz.sh

# Needs Python, as golden does: the peer is transformers.
bench:
	cargo build --release
	python reference/bench.py

# Needs Python: see reference/README.md.
golden:
	python reference/make_goldens.py

# Tells docs/bisecting.md anew: needs Python and Chromium.
story:
	scripts/story.sh

# Random load on the bundled model for half an hour.
soak:
	SOAK_SECONDS=1800 cargo test --release --workspace --test soak --test server_load -- --nocapture
