.PHONY: setup demo test bench golden
test:
	cargo test --release --workspace
