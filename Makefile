# The commands of this repository. `make demo` shows the product, `make test` runs every check CI runs.

SHELL := /bin/sh
CARGO ?= cargo
export LINEPROOF_BUILD ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null)

# The path of ONNX Runtime's library: the user's ORT_DYLIB_PATH wins, else the pinned one is fetched once into .cache/.
ORT = $(shell scripts/fetch-onnxruntime.sh)

.PHONY: help demo test check lint unit verifier page real skew bench bench-growth bench-peers faults planted onnxruntime deb package-trial sbom reproducible fuzz clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

demo: onnxruntime ## A simulated line, its verdicts, a report, and a forgery that is refused
	$(CARGO) build --release --locked
	ORT_DYLIB_PATH="$(ORT)" ./target/release/lineproof demo

test: lint verifier unit page ## Every check that CI runs

lint: ## Formatting, lints, licences and advisories
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --no-default-features -- -D warnings
	scripts/deny.sh
	scripts/check-packaging.sh

verifier: ## The auditor's binary: no server, no model runtime, no database
	$(CARGO) build --locked --no-default-features --target-dir target/verifier

unit: onnxruntime ## Unit tests, user journeys against the real binary, our verifier against clients/verify-py
	scripts/pyclient-check.sh
	ORT_DYLIB_PATH="$(ORT)" LINEPROOF_VERIFIER="$(CURDIR)/target/verifier/debug/lineproof" \
		LINEPROOF_S3_SERVER="$$(scripts/s3-server-env.sh)" LINEPROOF_TRITON="$$(scripts/triton-client-env.sh)" \
		LINEPROOF_PYCLIENT="$$(scripts/pyclient-env.sh)" LINEPROOF_MODEL_SIGNING="$$(scripts/model-signing-env.sh)" \
		LINEPROOF_OIDC_PROVIDER="$$(scripts/oidc-provider-env.sh)" \
		LINEPROOF_OPENVINO="$$(scripts/fetch-openvino.sh)" \
		LINEPROOF_PYTHON="$$(scripts/verify-py-env.sh)" LINEPROOF_KEEP="$(CURDIR)/target/verify-cases" $(CARGO) test --locked

page: ## The page that verifies in a browser: built from its sources, the same verdicts as clients/verify-py
	scripts/verify-page.sh target/verify-cases

real: onnxruntime ## Real parts through the running service; writes docs/accuracy.md
	$(CARGO) build --release --locked
	ORT_DYLIB_PATH="$(ORT)" scripts/real.sh

skew: onnxruntime ## Our scores against those of the tools that exported the model; installs 7 GB of them; writes docs/skew.md
	ORT_DYLIB_PATH="$(ORT)" scripts/skew.sh

bench: ## The numbers of docs/performance.md, some ten minutes on a quiet machine
	scripts/bench.sh

bench-growth: ## How cost grows: 100,000 to ten million decisions; 20 GB of disk, about half an hour
	scripts/bench-growth.sh

bench-peers: onnxruntime ## Beside six other inference servers: benches/peers/README.md; 4 GB of Python packages, 80 minutes
	ORT_DYLIB_PATH="$(ORT)" scripts/bench-peers.sh $(PEERS)

faults: onnxruntime ## Thousands of faults, docs/reliability.md; TIER=medium takes 35 minutes, TIER=long 4 hours
	ORT_DYLIB_PATH="$(ORT)" LINEPROOF_TIER="$(TIER)" $(CARGO) test --release --locked --test faults
	@case "$(TIER)" in medium | long) $(MAKE) planted ;; esac

planted: onnxruntime ## Bugs planted in our own code, which the checks of `make faults` must notice
	ORT_DYLIB_PATH="$(ORT)" LINEPROOF_ROWS=planted $(CARGO) test --release --locked \
		--features planted-bugs --target-dir target/planted --test faults

onnxruntime: ## Fetch ONNX Runtime by package name and pinned hash
	@scripts/fetch-onnxruntime.sh

deb: ## The Debian package, in target/debian/
	scripts/deb.sh

package-trial: deb ## Install, run, upgrade, remove and purge it in a booted Debian; the container's files in a sandbox; needs root
	scripts/check-package-booted.sh "$$(ls target/debian/lineproof_*.deb)"
	scripts/check-container.sh

sbom: ## Software bill of materials, CycloneDX 1.5, in target/sbom/
	scripts/sbom.sh

reproducible: ## Build the release twice in two folders and compare the bytes; some ten minutes
	scripts/reproducible.sh

clean: ## Remove what the commands above made, but not the fetched library
	$(CARGO) clean
	rm -rf demo
