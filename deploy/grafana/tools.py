"""Sandbox, call cache, and what the trainer published."""

from __future__ import annotations

from deploy.grafana.panels import RATE, Board, Panel, quantiles, rates

BOARD = Board(
    "agentflux-tools",
    "AgentFlux: sandbox, call cache, trainer",
    {
        "Sandbox": [
            Panel(
                "Calls", "By toolset and outcome: ok, tool_error (the tool's own), or why there is no result.", "reqps",
                [rates("agentflux_sandbox_call_duration_seconds_count", "toolset, outcome")],
            ),
            Panel(
                "Duration", "The start of a server included, p95.", "s",
                quantiles("agentflux_sandbox_call_duration_seconds", by="toolset"),
            ),
            Panel(
                "Cold starts", "From a call that needs a new server until that server is ready.", "s",
                quantiles("agentflux_sandbox_cold_start_seconds"),
            ),
            Panel(
                "Servers", "MCP servers that run, and whether the self-probe of the isolation passes.", "short",
                [("sum(agentflux_sandbox_servers)", "running"), ("min(agentflux_sandbox_serving)", "probe passes")],
            ),
            Panel(
                "Kills", "Servers not used again because a call failed, by reason.", "reqps",
                [rates("agentflux_sandbox_kills_total", "reason")],
            ),
            Panel(
                "Waiting for a server", "Calls that wait because every server is at work, and for how long.", "short",
                [
                    ("sum(agentflux_sandbox_waiting)", "waiting now"),
                    *quantiles("agentflux_sandbox_queue_seconds")[1:2],
                ],
            ),
            Panel(
                "Memory of the services", "Resident memory by service.", "bytes",
                [("max by (job) (process_resident_memory_bytes)", "{{job}}")],
            ),
        ],
        "Call cache": [
            Panel(
                "Look backs that found a repeat", "Share of all.", "percentunit",
                [
                    (
                        f"sum(rate(agentflux_callcache_hits_total{RATE}))"
                        f" / sum(rate(agentflux_callcache_hits_total{RATE}) + rate(agentflux_callcache_misses_total{RATE}))",
                        "repeats",
                    )
                ],
            ),
            Panel(
                "Steps of the ladder", "Calls that stood on a step, once per look back.", "reqps",
                [rates("agentflux_callcache_steps_total", "step")],
            ),
            Panel(
                "Redis", "1 while it answers; times it did not do what it was asked.", "short",
                [
                    ("min(agentflux_callcache_store_up)", "up"),
                    (f"sum(rate(agentflux_callcache_store_errors_total{RATE}))", "errors per second"),
                ],
            ),
        ],
        "Trainer: while it trains": [
            Panel(
                "Step", "The step that each training is in. This row is empty while nothing trains.", "short",
                [("max by (toolset, step) (agentflux_train_step) == 1", "{{toolset}} {{step}}")],
            ),
            Panel(
                "Time left in the step", "At its pace so far; nothing where the step cannot tell.", "s",
                [("max(agentflux_train_step_remaining_seconds)", "left")],
            ),
            Panel("Loss", "Mean per target of the last batch, in nats.", "short", [("agentflux_train_loss_nats", "{{adapter}}")]),
            Panel("Tokens", "Trained on per second.", "short", [rates("agentflux_train_tokens_total", "adapter")]),
            Panel(
                "Rows", "That adapters learn from, and what was dropped: trajectories by rule, rows too long by role.", "short",
                [
                    ("max by (adapter) (agentflux_train_rows)", "{{adapter}}"),
                    ("max by (rule) (agentflux_train_dropped_trajectories)", "dropped: {{rule}}"),
                    ("max by (role) (agentflux_train_too_long_rows)", "too long: {{role}}"),
                ],
            ),
            Panel(
                "Memory", "Of the training's process, and of the GPU.", "bytes",
                [
                    ("max(process_resident_memory_bytes and on (instance) agentflux_train_gpu_memory_bytes)", "process"),
                    ("max(agentflux_train_gpu_memory_bytes)", "GPU"),
                ],
            ),
        ],
        "Trainer: how it ended, and what it published": [
            Panel(
                "Trainings", "Since the last start, publish, refusal by the gate, and failure, by toolset.", "s",
                [
                    (
                        "time() - max by (toolset, event) (agentflux_train_last_timestamp_seconds > 0)",
                        "{{toolset}} {{event}}",
                    )
                ],
            ),
            Panel(
                "Release", "Number of the release that serves, by toolset.", "short",
                [("max by (toolset) (agentflux_release)", "{{toolset}}")],
            ),
            Panel(
                "Age of the release", "Since it was promoted.", "s",
                [("time() - max by (toolset) (agentflux_release_promoted_timestamp_seconds)", "{{toolset}}")],
            ),
            Panel(
                "New releases", "In the last day: served, refused (does not fit), failed (an engine could not take it).", "short",
                [("sum by (toolset, outcome) (increase(agentflux_release_changes_total[1d]))", "{{toolset}} {{outcome}}")],
            ),
            Panel(
                "Time to warm a release", "From noticing it until every adapter answered on every engine.", "s",
                quantiles("agentflux_release_warm_seconds"),
            ),
            Panel(
                "Decision log", "Rows for the trainer, by outcome.", "reqps",
                [rates("agentflux_decision_log_rows_total", "outcome")],
            ),
            Panel(
                "Judgements", "Feedback per second, by verdict.", "reqps", [rates("agentflux_feedback_total", "correct")],
            ),
        ],
    },
)  # fmt: skip
