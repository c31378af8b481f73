.PHONY: setup demo test test-vocab test-html bench golden story lint soak fuzz

# Everything the build needs comes with Rust; this fetches the crates.
setup:
	cargo fetch

demo:
	cargo run --release -- generate --image models/shapes/examples/red_circle.png --prompt "Describe this image."

test: lint
	cargo test --release --workspace --no-fail-fast

lint:
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps --package pyrex-core --package pyrex-openai

# Gemma 4's real vocabulary, fetched from a public package into .cache.
test-vocab:
	scripts/test-vocab.sh

# The pages of the report in a browser without a screen, which is installed if there is none.
test-html:
	scripts/test-html.sh

# Needs nightly Rust and cargo-fuzz; FUZZ_SECONDS for each target, 60 unless set.
fuzz:
	scripts/fuzz.sh

# Needs Python, as golden does: the peer is transformers.
bench:
	cargo build --release
	python reference/bench.py

# The only target that needs Python: see reference/README.md.
golden:
	python reference/make_goldens.py

# Tells docs/bisecting.md anew: needs Python and Chromium.
story:
	scripts/story.sh

# Random load on the bundled model for half an hour.
soak:
	SOAK_SECONDS=1800 cargo test --release --workspace --test soak -- --nocapture
