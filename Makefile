# What there is to do here. `make` alone says so.

EXAMPLE ?= orders
.DEFAULT_GOAL := help
.PHONY: help run test quick lint docs bench gates fuzz image brokers-up brokers-down

help: ## say what there is to do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Built first and on its own, so that what to try is the last thing on the screen when it starts.
run: ## build and run examples/orders on the in-memory broker; Ctrl-C stops it in order
	@cargo build --package orders
	@echo 'orders is starting; try in another terminal:'
	@echo "  curl -i localhost:8080/orders -H 'content-type: application/json' -d '{\"id\": \"A1\", \"item\": \"tea\", \"quantity\": 2}'"
	@echo '  curl -i localhost:8080/orders/A1'
	@exec cargo run --quiet --package orders

test: ## all that CI runs: formatting, lints, invariants, tests, docs, licences
	@scripts/test.sh all

quick: ## the inner loop: only the tests that run inside one process
	@scripts/test.sh quick

lint: ## formatting and clippy
	@scripts/test.sh lint

docs: ## API documentation into target/doc; a broken link is an error
	@RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps

bench: ## the kit beside bare axum, the tower stack, channels and Kafka's own client: time, memory, what a stop loses
	@cargo run --locked --release --package mainspring-benches

gates: ## instructions and allocations against benches/gates.toml; scripts/gates.sh --accept takes new numbers
	@scripts/gates.sh

fuzz: ## look for inputs that break a promise, a minute for each target; scripts/fuzz.sh TARGET SECONDS for longer
	@scripts/fuzz.sh

image: ## a container image of EXAMPLE (default: orders)
	@scripts/image.sh $(EXAMPLE)

brokers-up: ## real brokers on loopback: Kafka 19092, SNS and SQS 15000, Pub/Sub 18085
	@scripts/brokers.sh up

brokers-down: ## stop what brokers-up started
	@scripts/brokers.sh down
