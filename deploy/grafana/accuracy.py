"""Is it right, how sure is it, and what happens when it is not: accuracy without labels, and with feedback."""

from __future__ import annotations

from deploy.grafana.panels import RATE, Board, Panel, mean, rates, ratio, share

# Arguments that a schema was held against.
WRITTEN = 'outcome=~"first_try|repaired|invalid"'

BOARD = Board(
    "agentflux-accuracy",
    "AgentFlux: accuracy",
    {
        "Is it right?": [
            Panel(
                "Judged correct", "Of the decisions that applications sent feedback on (POST /v1/feedback).", "percentunit",
                [(share("agentflux_feedback_total", 'correct="true"', by="toolset"), "{{toolset}}")], top=1,
            ),
            Panel(
                "Corrected by the user", "Calls whose arguments the next thing the user said changed. A sign, no proof.",
                "percentunit",
                [(ratio("agentflux_corrected_calls_total", 'agentflux_turn_selections_total{tool!="answer"}'), "corrected")],
            ),
            Panel(
                "Tools that say no", "Share of executed calls in which the tool itself reported an error: often bad arguments.",
                "percentunit",
                [(share("agentflux_sandbox_call_duration_seconds_count", 'outcome="tool_error"', by="toolset"), "{{toolset}}")],
            ),
        ],
        "How sure is the vote?": [
            Panel(
                "Margin", "Mean lead of the winner over the runner-up, by adapter. Look at any drop.",
                "percentunit", [mean("agentflux_vote_margin_ratio", "adapter")], top=1,
            ),
            Panel(
                "Votes with a small margin", "Share of votes whose winner led by less than 0.2.", "percentunit",
                [(ratio('agentflux_vote_margin_ratio_bucket{le="0.2"}', "agentflux_vote_margin_ratio_count"), "below 0.2")],
            ),
            Panel(
                "Entropy", "Mean entropy of the votes: 0 certain, 1 no idea.", "percentunit",
                [mean("agentflux_vote_entropy_ratio", "adapter")], top=1,
            ),
            Panel(
                "Candidate agrees", "Share of the votes that a candidate (shadow_adapter) repeated alike.", "percentunit",
                [(share("agentflux_shadow_votes_total", 'outcome="agreed"', by="adapter"), "{{adapter}}")], top=1,
            ),
            Panel(
                "Answers", "Share of votes that were for an answer in text.", "percentunit",
                [(share("agentflux_selections_total", 'outcome="answer"', by="adapter"), "{{adapter}}")], top=1,
            ),
            Panel(
                "Probability on candidates", "How much of its probability the model gave to any of the candidates at all.",
                "percentunit", [mean("agentflux_vote_valid_mass_ratio", "adapter")], top=1,
            ),
            Panel(
                "Fallbacks", "Decisions not simply those of the toolset's adapters, as a share of all, by reason.", "percentunit",
                [
                    (
                        f"sum by (reason) (rate(agentflux_fallbacks_total{RATE})) "
                        f"/ ignoring(reason) group_left sum(rate(agentflux_turn_selections_total{RATE}))",
                        "{{reason}}",
                    )
                ],
            ),
        ],
        "Arguments": [
            Panel(
                "Valid at the first try", "Of arguments that were written, those that satisfied their schema at once.",
                "percentunit",
                [(share("agentflux_arguments_total", 'outcome="first_try"', all_of=WRITTEN), "first try")], top=1,
            ),
            Panel(
                "Outcomes", "repaired: valid at the second try; invalid: not even then.", "reqps",
                [rates("agentflux_arguments_total", "outcome")],
            ),
            Panel(
                "Unknown tools", "Decisions for a tool that the request does not have. Always 0.", "short",
                [("sum(increase(agentflux_unknown_tool_total[1h]))", "in an hour")], kind="stat",
            ),
        ],
        "Loops, and what serves": [
            Panel(
                "Repeated calls", "Calls made before with the same arguments since the user last spoke, per second.", "reqps",
                [rates("agentflux_repeated_calls_total", "toolset")],
            ),
            Panel(
                "Turns stopped", "Share of turns in which the loop ladder blocked the call.", "percentunit",
                [(share("agentflux_turns_total", 'outcome="stopped"'), "stopped")], limit=0.02,
            ),
            Panel(
                "Release that serves", "Number of the release by toolset; 0 is the base model.", "short",
                [("max by (toolset) (agentflux_release)", "{{toolset}}")],
            ),
        ],
    },
)  # fmt: skip
