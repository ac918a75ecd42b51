"""A grammar for tools that nobody wrote one for, from what their server says of them: name, description and JSON Schema.

Each tool gets requests of its own, and requests that come after a call which makes the thing they are about: servers that keep
something refuse to change what is not there. What else a server refuses nobody knows: a call that it refuses was asked for all
the same. What is said beside that has nothing to do with the tools.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from services.shared.contracts.schemas import compiled_schema
from services.shared.contracts.tools import JsonObject, Tool
from trainer.episodes import Ask, Call, Say
from trainer.grammars.mechanics import Dice, Grammar, Scene, Steps, World, alternatives, words
from trainer.grammars.schema_values import Draft, Said, Unspeakable, bare_words, human, singular
from trainer.grammars.schema_words import FAMILIES, HELDOUT, TRAIN, Wording

# What a thing is called by, whatever it is.
IDENTITIES = ("name", "id", "path", "title", "key", "slug")
TRIES = 8
_FILLERS = words("multiple,specific,specified,given,for")
# What a clause that was cut short must not end with.
_HANGING = words("a,an,the,their,its,your,and,or,of,in,on,to,by,from,with,at,based,that,which,using,into")


@dataclass(frozen=True)
class Deed:
    """What a tool does, in words: the verb it is named with, and its objects from short to long."""

    tool: Tool
    verb: str
    objects: tuple[str, ...]

    @property
    def noun(self) -> str:
        """The kind of thing that it is done to, in the singular."""
        return singular(self.objects[0].split(" ")[-1])


def deed(tool: Tool) -> Deed:
    """The deed of a tool, from its name and the first clause of its description."""
    name, clause = human(tool.name).split(" "), _clause(tool.description)
    verb = next((word for word in name if word in FAMILIES), clause[0] if clause and clause[0] in FAMILIES else name[0])
    rest = " ".join(word for word in name if word != verb) or " ".join(clause[1:]) or name[0]
    told = clause[1:] if clause and (clause[0] == verb or FAMILIES.get(clause[0], 0) == FAMILIES.get(verb)) else []
    long = (" ".join(told),) if len(told) > 1 else ()
    return Deed(tool, verb, (rest, *long))


def _clause(description: str) -> list[str]:
    """Its first words up to a sign, the verb as an order: "Returns the list." is return, the, list."""
    first = re.split(r"[.,;:()\n]| - ", description.strip(), maxsplit=1)[0].split()[:9]
    found = [word for word in first if word not in _FILLERS]
    while found and found[-1] in _HANGING:
        found.pop()
    return [singular(found[0].lower()), *found[1:]] if found else []


@dataclass(frozen=True)
class Speaker:
    """One party before one toolset: `verbs` has for each tool what it may be asked with."""

    wording: Wording
    verbs: dict[str, list[str]]

    def do(self, dice: Dice, what: Deed, several: bool) -> str:
        """The order itself."""
        thing = dice.choice((*what.objects, what.objects[0]))
        if not several and thing == what.objects[0] and singular(thing) != thing and dice.one_in(1.5):
            thing = f"{'an' if thing[0] in 'aeiou' else 'a'} {singular(thing)}"
        elif thing == what.objects[0] and dice.one_in(3):
            thing = f"the {thing}"
        return f"{dice.choice(self.verbs[what.tool.name])} {thing}"

    def request(self, dice: Dice, what: Deed, said: Sequence[Said | None], templates: Sequence[str]) -> str:
        """The whole sentence."""
        do = self.do(dice, what, several=None in said)
        if not said:
            templates = self.wording.bare if templates is self.wording.requests else templates
            return dice.text(templates, do=do, given="", said="").strip()
        spoken = self.spoken(dice, said)
        given = dice.choice(self.wording.wrapped).format(spoken)
        first = said[0]
        if len(said) == 1 and first and not isinstance(first.values[0], bool) and dice.one_in(1.5):
            # What the only value is for goes without saying.
            spoken = self._values(dice, first)
            given = dice.choice(self.wording.lone).format(spoken)
        text = dice.text(templates, do=do, given=given, said=spoken)
        return re.sub(r" ([,:;])(?= )", r"\1", text)

    def spoken(self, dice: Dice, said: Sequence[Said | None]) -> str:
        """All parameters, each with its label, in one manner."""
        manner, text = dice.choice(self.wording.labelled), ""
        for before, part in zip([None, *said], said, strict=False):
            if part is None:
                text += dice.choice(self.wording.another)
                continue
            text += ", " if before is not None else ""
            if isinstance(part.values[0], bool):
                text += dice.choice(self.wording.switches[part.values[0]]).format(label=part.label)
            else:
                quoted = '"' in manner
                text += manner.format(label=part.label, value=self._values(dice, part, quote=not quoted))
        return text

    def _values(self, dice: Dice, part: Said, quote: bool = True) -> str:
        way = dice.choice(self.wording.quotes) if quote else "{}"
        values = [way.format(_text(value)) for value in part.values]
        return " and ".join([", ".join(values[:-1]), values[-1]] if len(values) > 1 else values)


def _text(value: object) -> str:
    # A keyword such as in_progress is said in words.
    return value.replace("_", " ") if isinstance(value, str) and value.isidentifier() else str(value)


def drawn(
    dice: Dice, world: World, wording: Wording, tool: Tool, known: Sequence[str] = (), subject: frozenset[str] = frozenset()
) -> tuple[JsonObject, Draft] | None:
    """Arguments that satisfy the whole schema, and what is to be said; None when the dice do not find any."""
    for _ in range(TRIES):
        draft = Draft(dice, wording.values, world, tool, list(known), subject)
        try:
            arguments = draft.arguments()
        except Unspeakable:
            return None
        if compiled_schema(tool).is_valid(arguments):
            return arguments, draft
    return None


def alone(what: Deed, speaker: Speaker, dice: Dice, world: World) -> Steps | None:
    """One request, one call."""
    found = drawn(dice, world, speaker.wording, what.tool)
    if found is None:
        return None
    text = speaker.request(dice, what, found[1].said, speaker.wording.requests)
    return [Ask(text=text), _call(what, found[0]), _answer(dice, speaker)]


def after(maker: Deed, what: Deed, speaker: Speaker, dice: Dice, world: World) -> Steps | None:
    """Something is made, then something is done to it: in one request, or in a second one."""
    made = drawn(dice, world, speaker.wording, maker.tool)
    if made is None:
        return None
    for identity in IDENTITIES:
        names = [str(part.values[0]) for part in made[1].said if part and part.label in (identity, f"{maker.noun} {identity}")]
        subject = frozenset({maker.noun, identity})
        found = drawn(dice, world, speaker.wording, what.tool, names, subject) if names else None
        if found and found[1].taken:
            break
    else:
        return None
    calls = [_call(one, given[0]) for one, given in ((maker, made), (what, found))]
    plain = ("{do} {given}",)
    if dice.one_in(2):
        first, second = (speaker.request(dice, one, given[1].said, plain) for one, given in ((maker, made), (what, found)))
        return [Ask(text=dice.text(speaker.wording.pairs, first=first, second=second)), *calls, _answer(dice, speaker)]
    first = speaker.request(dice, maker, made[1].said, speaker.wording.requests)
    second = speaker.request(dice, what, found[1].said, speaker.wording.follow)
    return [Ask(text=first), calls[0], _answer(dice, speaker), Ask(text=second), calls[1], _answer(dice, speaker)]


def talk(templates: Sequence[str], speaker: Speaker, dice: Dice, world: World) -> Steps | None:
    """No tool is needed, or none is there for it."""
    return [Ask(text=dice.text(templates)), _answer(dice, speaker)]


def _call(what: Deed, arguments: JsonObject) -> Call:
    return Call(tool=what.tool.name, arguments=arguments, fails=None)


def _answer(dice: Dice, speaker: Speaker) -> Say:
    return Say(text=dice.choice(speaker.wording.answers))


def schema_grammar(toolset: str, part: str, tools: Sequence[Tool]) -> Grammar:
    """The grammar of any toolset, for the `part` "train" or "heldout"."""
    wording = {"train": TRAIN, "heldout": HELDOUT}[part]
    deeds = [deed(tool) for tool in tools]
    speaker = Speaker(wording, {what.tool.name: _verbs(what, deeds, wording) for what in deeds})
    chats: list[tuple[str, float, Sequence[str]]] = [
        ("chat", 1.0, wording.chat),
        ("outside", 0.8, _foreign(wording.outside, tools)),
    ]
    makers = {what.tool.name: [maker for maker in deeds if _makes(maker, what, speaker)] for what in deeds}
    making = {maker.tool.name for found in makers.values() for maker in found}
    scenes: list[Scene] = []
    for what in deeds:
        name, able = what.tool.name, makers[what.tool.name]
        # Servers refuse to add to an existing thing before there is one.
        dependent = bool(able) and name not in making and "existing" in what.tool.description
        scenes += [] if dependent else [Scene(name, 1.0, partial(alone, what, speaker))]
        weight = (1.6 if dependent else 0.8) / max(1, len(able))
        scenes += [Scene(f"{maker.tool.name}+{name}", weight, partial(after, maker, what, speaker)) for maker in able]
    scenes += [Scene(kind, weight, partial(talk, said, speaker)) for kind, weight, said in chats if said]
    return Grammar(f"{toolset}_{part}", wording.tree, scenes, wording.systems, wording.finish)


def _verbs(what: Deed, deeds: Sequence[Deed], wording: Wording) -> list[str]:
    # A synonym that another tool is named with would make it a guess which of the two is meant.
    taken = {other.verb for other in deeds} - {what.verb}
    family = wording.verbs.get(FAMILIES.get(what.verb, ""), ())
    return [verb for verb in family if verb.split(" ")[0] not in taken] or [what.verb]


def _makes(maker: Deed, what: Deed, speaker: Speaker) -> bool:
    """Whether `what` can be done to what `maker` makes; found by trying."""
    if maker is what or FAMILIES.get(maker.verb) != "create":
        return False
    # Which files a world has does not matter here.
    return any(after(maker, what, speaker, Dice(seed), World({"a/b.txt": ""})) for seed in range(TRIES))


def _foreign(templates: Sequence[str], tools: Sequence[Tool]) -> list[str]:
    """Those requests that share no word with what the tools are for."""
    own = {word for tool in tools for word in bare_words(f"{human(tool.name)} {tool.description}") if len(word) > 3}
    return [template for template in templates if own.isdisjoint(bare_words(" ".join(alternatives(template))))]
