"""Engines, what our services get from them, and adapters."""

from __future__ import annotations

from deploy.grafana.panels import RATE, Board, Panel, quantiles, rates, ratio

BOARD = Board(
    "agentflux-engine",
    "AgentFlux: engine and adapters",
    {
        "Engines": [
            Panel(
                "Engines that get requests", "As each service sees them: 1 while requests go there.", "short",
                [("min by (engine) (agentflux_engine_up)", "{{engine}}")], top=1,
            ),
            Panel(
                "Waiting and running", "Requests inside vLLM.", "short",
                [("sum(vllm:num_requests_waiting)", "waiting"), ("sum(vllm:num_requests_running)", "running")],
            ),
            Panel(
                "KV cache", "Share of the cache's blocks in use; near 1, requests wait or are pre-empted.", "percentunit",
                [("max by (instance) (vllm:kv_cache_usage_perc)", "{{instance}}")], top=1,
            ),
            Panel(
                "Time to first token", "Inside vLLM.", "s", quantiles("vllm:time_to_first_token_seconds"),
            ),
            Panel(
                "Time between tokens", "Inside vLLM.", "s", quantiles("vllm:inter_token_latency_seconds"),
            ),
            Panel(
                "Time in vLLM's queue", "Before a request is computed at all.", "s", quantiles("vllm:request_queue_time_seconds"),
            ),
            Panel(
                "Tokens per second", "Read (prompt) and written (generation).", "short",
                [
                    (f"sum(rate(vllm:prompt_tokens_total{RATE}))", "prompt"),
                    (f"sum(rate(vllm:generation_tokens_total{RATE}))", "generation"),
                ],
            ),
            Panel(
                "Prefix cache", "Share of prompt tokens that were in the cache.", "percentunit",
                [(ratio("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"), "hits")], top=1,
            ),
            Panel(
                "Pre-emptions and restarts", "Requests pushed out for others, per second; starts after the first.", "short",
                [
                    (f"sum(rate(vllm:num_preemptions_total{RATE}))", "pre-emptions"),
                    ("sum(increase(agentflux_engine_restarts_total[1h]))", "restarts in an hour"),
                ],
            ),
        ],
        "As our services see it": [
            Panel(
                "Requests to the engines", "By role and outcome.", "reqps",
                [rates("agentflux_engine_requests_total", "role, outcome")],
            ),
            Panel(
                "Duration by role", "Retries included, p95.", "s",
                quantiles("agentflux_engine_request_duration_seconds", by="role"),
            ),
            Panel(
                "Second tries and ejections", "Requests sent to another engine, by reason; engines taken out.", "reqps",
                [rates("agentflux_engine_retries_total", "reason"), rates("agentflux_engine_ejections_total", "engine")],
            ),
        ],
        "Adapters": [
            Panel(
                "Tokens by adapter", "Per second, the ten largest.", "short",
                [(f"topk(10, sum by (adapter) (rate(agentflux_engine_tokens_total{RATE})))", "{{adapter}}")],
            ),
            Panel(
                "Loads and evictions", "Adapters read from disk, and those that left memory: many mean too few slots.", "reqps",
                [rates("agentflux_adapter_loads_total", "adapter"), rates("agentflux_adapter_evictions_total", "adapter")],
            ),
            Panel(
                "Time of a load", "Requests wait for it.", "s", quantiles("agentflux_adapter_load_seconds"),
            ),
            Panel(
                "Adapters that serve", "Every adapter of the releases that serve, by toolset and release.", "short",
                [("max by (toolset, adapter, release) (agentflux_adapter_info)", "{{toolset}} {{release}}: {{adapter}}")],
                kind="table",
            ),
            Panel(
                "Refused adapters", "Requests to vLLM for a name that is no adapter which may be served.", "reqps",
                [rates("agentflux_adapter_refusals_total", "adapter")],
            ),
            Panel(
                "Running by adapter", "Requests that wait for the engines.", "short",
                [("sum by (adapter) (agentflux_engine_requests)", "{{adapter}}")],
            ),
        ],
    },
)  # fmt: skip
