PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo studio test test-all soak lint docs bench arm64

# The whole job once, on a synthetic camera.
demo: .venv/ready
	$(BIN)/python live/demo.py

# The page that teaches a camera, on a synthetic camera. It prints the address to open.
studio: .venv/ready
	$(BIN)/python teach/studio.py --camera synthetic --data runs/studio/data

# What a change needs: everything that is quick.
test: lint
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow and not network"

# Everything, as CI runs it. With the niceness of a teacher's thread, which would wait for all tests otherwise.
test-all: lint docs
	nice -n 10 $(BIN)/python -m pytest -n auto --dist worksteal

# tests/robustness for much longer: many more damaged files, requests, signals and full disks, at random.
soak: .venv/ready
	TEACHCAM_SOAK=1 $(BIN)/python -m pytest tests/robustness

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/lib build/site  # setuptools would put files of an older build into the package
	$(BIN)/pip install --quiet --no-deps --target build/site .
	cd build/site && for platform in linux darwin win32; do \
		../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../mypy/$$platform --platform $$platform || exit 1; \
	done

docs: .venv/ready
	$(BIN)/mkdocs build --strict --quiet --site-dir build/docs

# teachcam beside others, on the same images: benchmarks/RESULTS.md. BENCH="--data synthetic DIR" adds a dataset.
bench: .venv/ready
	$(BIN)/python benchmarks/peers $(BENCH)

# The live loop on an emulated Jetson Nano's processor, and on one without VNNI (Debian's qemu-user).
arm64: .venv/ready
	tests/arm64_root.sh
	$(BIN)/python -m pytest tests/integration/test_other_processors.py

# Made again whenever the requirements are newer than it. The stamp is written last: a broken install is retried.
.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -r requirements.txt
	touch $@
