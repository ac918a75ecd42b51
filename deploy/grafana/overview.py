"""The board to look at first: service level, requests, load."""

from __future__ import annotations

from deploy.grafana.panels import RATE, Board, Panel, quantiles, rates, share

# Requests of clients, in whichever service's metrics: only the gateway has these routes.
DOORS = 'route=~"/v1/(chat/completions|completions|responses|messages|embeddings)"'

BOARD = Board(
    "agentflux-overview",
    "AgentFlux: overview",
    {
        "Service level": [
            Panel(
                "Error budget left, 30 days", "1 means untouched, 0 spent: 99.9 % of requests may not end in a 5xx.",
                "percentunit", [("1 - agentflux:errors:ratio_rate30d / 0.001", "left")], kind="stat",
            ),
            Panel(
                "Burn rate", "How many times faster than allowed the budget is spent. Alerts: 14.4 in 1 h, 6 in 6 h.",
                "short", [(f"agentflux:errors:ratio_rate{window} / 0.001", window) for window in ("5m", "1h", "6h")],
                limit=6,
            ),
            Panel(
                "Services that answer", "Scraped targets by job: 1 while Prometheus reaches them.", "short",
                [("min by (job) (up)", "{{job}}")], top=1,
            ),
        ],
        "Requests": [
            Panel(
                "Requests per second", "Of clients, by door.", "reqps",
                [rates("agentflux_request_duration_seconds_count", "route", DOORS)],
            ),
            Panel(
                "Errors", "Share of requests that ended in a 5xx, and in a 4xx.", "percentunit",
                [
                    (share("agentflux_request_duration_seconds_count", f'{DOORS},status=~"{kind}.."', all_of=DOORS), f"{kind}xx")
                    for kind in (5, 4)
                ],
            ),
            Panel(
                "Duration", "From the first byte of a request to the last byte of its reply.", "s",
                quantiles("agentflux_request_duration_seconds", DOORS),
            ),
            Panel(
                "First event", "Until the first thing that a client can see of a reply.", "s",
                quantiles("agentflux_first_event_seconds"), limit=5,
            ),
            Panel(
                "Overhead", "Time of a turn's decisions in which no engine was waited for.", "s",
                quantiles("agentflux_overhead_seconds"), limit=0.05,
            ),
            Panel(
                "Stages", "What selector and argument service report of a turn, p95.", "s",
                quantiles("agentflux_stage_duration_seconds", by="stage"),
            ),
        ],
        "Load": [
            Panel(
                "Turns with and without a place", "Turns that run, and turns that wait for one to end.", "short",
                [("sum(agentflux_turns_running)", "running"), ("sum(agentflux_turns_waiting)", "waiting")],
            ),
            Panel(
                "Refused", "Requests refused before they cost anything, per second.", "reqps",
                [rates("agentflux_refused_total", "reason")],
            ),
            Panel(
                "Turns by outcome", "tool_call, answer, stopped (by the loop ladder), error.", "reqps",
                [rates("agentflux_turns_total", "outcome")],
            ),
            Panel(
                "Tokens by caller", "Per second, the ten largest.", "short",
                [(f"topk(10, sum by (caller) (rate(agentflux_caller_tokens_total{RATE})))", "{{caller}}")],
            ),
            Panel(
                "Breakers", "0 closed, 1 half open, 2 open: the dependency is not asked for a while.", "short",
                [("max by (dependency) (agentflux_breaker_state)", "{{dependency}}")], top=2,
            ),
            Panel(
                "Event loop", "How late the event loop comes back, p95 by service: what blocks it blocks every request.", "s",
                quantiles("agentflux_event_loop_lag_seconds", by="job"), limit=0.25,
            ),
        ],
    },
)  # fmt: skip
