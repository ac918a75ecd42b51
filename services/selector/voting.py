"""Turns scores or samples into one decision with its margin. A tie goes to the tool listed first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from services.selector.labels import LabelTrie, LogProbs, path_logprob


@dataclass(frozen=True)
class Vote:
    """The winner and how sure the vote is. `probabilities` sum to 1 over all labels, in the order of the labels."""

    winner: str
    probabilities: dict[str, float]
    margin: float
    valid_mass: float
    tally: dict[str, int] | None = None


def exact_vote(trie: LabelTrie, logprobs: LogProbs) -> Vote:
    """The vote that infinitely many samples at temperature 1 would give, unparsable ones dropped.

    `logprobs[node][token]` are natural logs of the model's own probabilities, not renormalised at any node: a name whose
    later tokens are unlikely must not profit from a likely first token. A label whose nodes were not all worth reading has
    the probability 0, which is wrong by less than `labels.NEGLIGIBLE`.
    """
    read = {label: path_logprob(path, logprobs) for label, path in trie.paths.items()}
    totals = {label: -math.inf if total is None else total for label, total in read.items()}
    # Shifted by the largest one, so that names which are all unlikely do not underflow to 0/0.
    largest = max(totals.values())
    weights = {label: math.exp(total - largest) for label, total in totals.items()}
    mass = math.fsum(weights.values())
    probabilities = {label: weight / mass for label, weight in weights.items()}
    return _vote(probabilities, valid_mass=min(1.0, mass * math.exp(largest)))


def sampled_vote(labels: Sequence[str], samples: Sequence[str | None]) -> Vote | None:
    """The majority among the samples that name a label; None when none does."""
    counts: Counter[str] = Counter(sample for sample in samples if sample is not None and sample in labels)
    valid = counts.total()
    if not valid:
        return None
    vote = _vote({label: counts[label] / valid for label in labels}, valid_mass=valid / len(samples))
    return replace(vote, tally=dict(counts))


def certain_vote(label: str, *, tally: dict[str, int] | None = None, valid_mass: float = 1.0) -> Vote:
    """The vote where one label is all there is."""
    return Vote(label, {label: 1.0}, margin=1.0, valid_mass=valid_mass, tally=tally)


def is_decided(labels: Sequence[str], samples: Sequence[str | None], still_to_come: int) -> bool:
    """Whether samples still to come cannot change the winner any more: its lead is larger than their number."""
    counts = sorted(Counter(sample for sample in samples if sample in labels).values(), reverse=True)
    lead = counts[0] - (counts[1] if len(counts) > 1 else 0) if counts else 0
    return lead > still_to_come


def entropy(probabilities: Iterable[float], /) -> float:
    """How undecided a vote is: the entropy of its probabilities as a share of the largest possible one, 0..1.

    0 where one label has it all (or is the only one), 1 where all are equally likely.
    """
    given = list(probabilities)
    if len(given) < 2:
        return 0.0
    return min(1.0, math.fsum(-p * math.log(p) for p in given if p > 0) / math.log(len(given)))


def overruled(vote: Vote, answer: str, threshold: float) -> Vote:
    """The vote in which `answer` wins only with a probability of at least `threshold`; else the likeliest tool does.

    The margin of a tool that won so is negative: it trails the answer.
    """
    tools = {label: probability for label, probability in vote.probabilities.items() if label != answer}
    if vote.winner != answer or not tools or vote.probabilities[answer] >= threshold:
        return vote
    return _won_by(max(tools, key=lambda label: tools[label]), vote)


def _vote(probabilities: dict[str, float], *, valid_mass: float) -> Vote:
    # max() returns the first of equals, and the labels are in the order of the request's tools.
    winner = max(probabilities, key=lambda label: probabilities[label])
    return _won_by(winner, Vote(winner, probabilities, margin=0.0, valid_mass=valid_mass))


def _won_by(winner: str, vote: Vote) -> Vote:
    best_other = max((p for label, p in vote.probabilities.items() if label != winner), default=0.0)
    return replace(vote, winner=winner, margin=vote.probabilities[winner] - best_other)
