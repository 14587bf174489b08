# One virtual environment, two jobs. PYTHON may name another interpreter (>= 3.11).
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test install clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(RUN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

install: $(STAMP)

# Four phantom hospitals train, a fifth is external; ends with the path of the report.
demo: $(STAMP)
	$(RUN)/concors-sim run configs/demo.yaml

# Every check and every test.
test: $(STAMP)
	PATH="$(abspath $(RUN)):$$PATH" scripts/check
	PATH="$(abspath $(RUN)):$$PATH" scripts/test

clean:
	rm -rf $(VENV)
