PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench arm64

demo: .venv/ready
	$(BIN)/python demo.py

test: lint
	$(BIN)/python -m pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/ready
	$(BIN)/python benchmarks/live_loop.py
	$(BIN)/python benchmarks/capture_rate.py

# The live loop on an emulated Jetson Nano's processor (Debian's qemu-user), and on one without VNNI.
arm64: .venv/ready
	tests/arm64_root.sh
	$(BIN)/python -m pytest tests/integration/test_other_processors.py

# Made again whenever the requirements are newer than it. The stamp is written last: a broken install is retried.
.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -r requirements.txt
	touch $@
