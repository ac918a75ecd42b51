"""Arguments for a tool of which only the JSON Schema is known, and what a user has to say for them to be right.

Left out are lists of lists and schemas that call themselves more than six deep. What a schema demands of several parameters
together (dependencies, conditions) is not aimed at: the caller checks the whole, and throws the dice again.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import rstr

from services.shared.contracts.schemas import compiled_schema
from services.shared.contracts.tools import JsonObject, Tool
from trainer.grammars.mechanics import Dice, World, words

DEPTH = 6
# How often values that people say are drawn before one is made up to fit, and how long what is made up may be.
DRAWS = 20
LONGEST = 80
# Which values fit a parameter: the first line with a word of its label, the last word looked at first.
HINTS: tuple[tuple[str, frozenset[str]], ...] = tuple(
    (hint, frozenset(words(said)))
    for hint, said in (
        ("zone", "timezone,tz,zone"),
        ("formula", "expression,formula,equation,calculation"),
        ("query language", "sql"),
        ("command", "command,cmd,shell"),
        ("cells", "cell,range"),
        ("color", "color,colour"),
        ("language", "language,lang,locale"),
        ("currency", "currency"),
        ("host", "host,hostname,domain"),
        ("version", "version"),
        ("branch", "branch,ref,revision"),
        ("mail", "email,mail,recipient,cc,bcc"),
        ("link", "url,uri,link,website,endpoint"),
        ("date", "date,day,deadline,since,until,after,before,due,birthday"),
        ("time", "time,hour"),
        ("path", "path,file,filename,filepath,source,destination"),
        ("folder", "folder,directory,dir"),
        ("number", "id,number,key,code,uuid,ticket,sku"),
        ("kind", "type,kind,category,tag,label,role,status,group,genre"),
        ("place", "city,place,location,address,country,town,where,region"),
        ("word", "query,search,term,keyword,pattern,topic,subject,q"),
        ("phrase", "text,content,contents,body,message,description,note,comment,observation,summary,value,reason,prompt"),
        ("name", "name,title,entity,person,user,owner,assignee,author,from,to,who,customer"),
    )
)  # fmt: skip


# How descriptions introduce a value: (e.g. 'Europe/London').
_FOR_EXAMPLE = re.compile(r"(?:e\.g\.|for example|such as|example:|like),?:?\s*(['\"`])([^'\"`\n]{1,60})\1", re.IGNORECASE)


class Unspeakable(ValueError):
    """A schema for which nothing can be said."""


@dataclass(frozen=True)
class Said:
    """What the user says of one parameter: its label, and its values; a boolean is said otherwise than a text."""

    label: str
    values: tuple[object, ...]


@dataclass
class Draft:
    """One call in the making. `said` has None between two items of a list.

    `known` are names that were given before, of the thing that `subject` words describe, such as {"entity", "name"}: a
    parameter that is about it takes them instead of new ones, and `taken` counts them.
    """

    dice: Dice
    vocabulary: Mapping[str, Sequence[str]]
    world: World
    tool: Tool
    known: list[str] = field(default_factory=list)
    subject: frozenset[str] = frozenset()
    taken: int = 0
    used: set[str] = field(default_factory=set)
    said: list[Said | None] = field(default_factory=list)

    def arguments(self) -> JsonObject:
        """The arguments of one call.

        Raises:
            Unspeakable: the schema is beyond this.
        """
        schema = self._plain(self.tool.parameters or {"type": "object"})
        if schema["type"] != "object":
            raise Unspeakable(f"{self.tool.name}: its parameters are no object")
        return self._object(schema, "", 0)

    def _object(self, schema: JsonObject, label: str, depth: int) -> JsonObject:
        if depth > DEPTH:
            raise Unspeakable(f"{self.tool.name}: the schema of {label!r} is too deep")
        wanted = set(schema.get("required") or ())
        return {
            key: self._value(part, f"{label} {human(key)}".strip(), depth + 1)
            for key, part in (schema.get("properties") or {}).items()
            if key in wanted or self.dice.one_in(3)
        }

    def _value(self, schema: JsonObject, label: str, depth: int) -> object:
        schema = self._plain(schema)
        if schema["type"] == "object":
            return self._object(schema, label, depth)
        if schema["type"] == "array":
            return self._list(schema, label, depth)
        value = self._scalar(schema, label)
        if "const" not in schema:
            self.said.append(Said(label, (value,)))
        return value

    def _list(self, schema: JsonObject, label: str, depth: int) -> list[object]:
        items = self._plain(schema.get("items") or {"type": "string"})
        least = max(1, schema.get("minItems", 1))
        count = min(self.dice.choice((least, least, least + 1)), schema.get("maxItems", least + 1))
        if items["type"] == "array":
            raise Unspeakable(f"{self.tool.name}: {label!r} is a list of lists")
        if items["type"] == "object":
            found = []
            for number in range(count):
                if number and self.subject and not self.known:
                    break  # what was not given before cannot be relied on
                self.said += [None] if number else []
                found.append(self._object(items, "", depth + 1))
            return list(found)
        about = {"description": schema.get("description", ""), **items}
        values = list(dict.fromkeys(self._scalar(about, label) for _ in range(count)))
        self.said.append(Said(label if len(values) > 1 else singular(label), tuple(values)))
        return values

    def _plain(self, schema: object) -> JsonObject:
        """The schema without references and alternatives, with one type; `true` lets anything through.

        Raises:
            Unspeakable: it is `false`, a list of schemas, or no schema at all.
        """
        schema = {} if schema is True else schema
        if not isinstance(schema, dict):
            raise Unspeakable(f"{self.tool.name}: {schema!r:.60} is no schema of values that people say")
        for _ in range(DEPTH):
            if "$ref" in schema:
                schema = self._referred(schema["$ref"])
            for word in ("anyOf", "oneOf", "allOf"):
                parts = [part for part in schema.get(word) or () if isinstance(part, dict)]
                if options := [option for option in parts if option.get("type") != "null"]:
                    rest = {key: value for key, value in schema.items() if key != word}
                    chosen = options if word == "allOf" else [self.dice.choice(options)]
                    schema = {key: value for part in (rest, *chosen) for key, value in part.items()}
        kind = schema.get("type") or ("object" if "properties" in schema else "array" if "items" in schema else "string")
        kinds = [kind] if isinstance(kind, str) else [one for one in kind if one != "null"]
        return {**schema, "type": self.dice.choice(kinds or ["string"])}

    def _referred(self, reference: str) -> JsonObject:
        found: object = self.tool.parameters
        for part in reference.removeprefix("#").strip("/").split("/"):
            found = found.get(part) if isinstance(found, dict) else None
        if not isinstance(found, dict):
            raise Unspeakable(f"{self.tool.name}: {reference!r} leads nowhere")
        return found

    def _scalar(self, schema: JsonObject, label: str) -> object:
        options = [schema["const"]] if "const" in schema else [value for value in schema.get("enum") or () if value is not None]
        if options:
            value = self.dice.choice([value for value in options if value != schema.get("default")] or options)
            if isinstance(value, (dict, list)):
                raise Unspeakable(f"{self.tool.name}: {label!r} is one of {options!r:.60}, which nobody says")
            return value
        if schema["type"] == "boolean":
            return not schema.get("default", self.dice.one_in(4))
        if schema["type"] in ("integer", "number"):
            return self._number(schema)
        return self._text(schema, label)

    def _number(self, schema: JsonObject) -> float:
        """One of the forty steps from the lower bound; fractions where there is no room for many whole numbers."""
        above, below = schema.get("exclusiveMinimum", -math.inf), schema.get("exclusiveMaximum", math.inf)
        low, high = max(schema.get("minimum", -math.inf), above), min(schema.get("maximum", math.inf), below)
        low = min(1, high - 40) if low == -math.inf else low
        is_narrow = schema["type"] == "number" and 0 < high - low <= 2
        step = schema.get("multipleOf") or ((high - low) / 20 if is_narrow else 1)
        first = math.ceil(low / step)
        first += first * step == above
        last = first + 40
        if high < math.inf:
            last = min(last, math.floor(high / step))
            last -= last * step == below
        value = self.dice.randint(first, max(first, last)) * step
        return int(value) if value == int(value) else round(value, 6)

    def _text(self, schema: JsonObject, label: str) -> str:
        about = {*bare_words(label), *bare_words(str(schema.get("description", ""))), *bare_words(human(self.tool.name))}
        if self.known and self.subject and self.subject <= about:
            self.taken += 1
            self.used.add(self.known[0])
            return self.known.pop(0)
        told = (found[2] for found in _FOR_EXAMPLE.finditer(str(schema.get("description", ""))))
        given = schema["examples"] if isinstance(schema.get("examples"), list) else []
        examples = [text for text in (*given, *told) if isinstance(text, str)]
        if examples and self.dice.one_in(3):
            return self._other(examples)
        demands: JsonObject = {key: schema[key] for key in ("pattern", "minLength", "maxLength") if key in schema}
        if not demands:
            return self._usual(schema, label)
        part = {"type": "object", "properties": {"text": {"type": "string", **demands}}}
        fits = compiled_schema(Tool(name=self.tool.name, parameters=part))
        usual = (self._usual(schema, label) for _ in range(DRAWS))
        # Dates in figures, codes and words are what most patterns are about; the rest is made up.
        made = (self._made(schema, label) for _ in range(DRAWS))
        for text in (*usual, *made):
            if fits.is_valid({"text": text}):
                return text
        raise Unspeakable(f"{self.tool.name}: no text fits {label!r}")

    def _made(self, schema: JsonObject, label: str) -> str:
        """A text with the pattern of the schema, or else one that is as long as it demands."""
        if "pattern" in schema:
            try:
                return rstr.Rstr(self.dice).xeger(schema["pattern"])[: min(schema.get("maxLength", LONGEST), LONGEST)]
            except (re.error, KeyError, ValueError) as error:
                raise Unspeakable(f"{self.tool.name}: the pattern of {label!r} is not understood: {error}") from error
        text = self._usual(schema, label)
        while len(text) < min(schema.get("minLength", 0), LONGEST):
            text += f" {self._usual(schema, label)}"
        return text[: schema.get("maxLength")].strip()

    def _usual(self, schema: JsonObject, label: str) -> str:
        """What people say for a parameter of this format or label."""
        match schema.get("format"):
            case "date":
                return self._date()
            case "date-time":
                return f"{self._date()}T{self._time()}:00Z"
            case "time":
                return f"{self._time()}:00"
            case "email":
                return self._hinted("mail")
            case "uri" | "url" | "uri-reference":
                return self._hinted("link")
            case "uuid":
                return str(uuid.UUID(int=self.dice.getrandbits(128), version=4))
        if "pattern" in schema and self.dice.one_in(2):
            return self._hinted(self.dice.choice(("date", "time", "number", "word", "mail", "link")))
        about = str(schema.get("description", ""))
        hint = "query language" if re.search(r"\bsql\b", about, re.IGNORECASE) else next(hints(label), "word")
        if hint == "query language":
            return self._query(about)
        # Some servers take a path from the root only; the workspace is where their files are.
        return ("/workspace/" if hint in ("path", "folder") and "absolute" in about else "") + self._hinted(hint)

    def _hinted(self, hint: str) -> str:
        choose, known = self.dice.choice, self.vocabulary
        match hint:
            case "date":
                return self._date()
            case "time":
                return self._time()
            case "path":
                return self._other(sorted(self.world.files))
            case "folder":
                return self._other(self.world.folders)
            case "formula":
                first, second, third = (self.dice.randint(2, 90) for _ in range(3))
                return choose((f"{first} + {second}", f"{first} * {second} - {third}", f"({first} + {second}) / {third}"))
            case "cells":
                row = self.dice.randint(1, 30)
                return f"{choose('ABCD')}{row}:{choose('EFGH')}{row + self.dice.randint(0, 40)}"
            case "version":
                return ".".join(str(self.dice.randint(0, 9)) for _ in range(3))
            case "number":
                return f"{choose(known['prefix'])}-{self.dice.randint(100, 999)}"
            case "mail":
                return f"{choose(known['word'])}@{choose(known['host'])}"
            case "link":
                return f"https://{choose(known['host'])}/{choose(known['word'])}"
        return self._other(known[hint])

    def _query(self, about: str) -> str:
        """SQL of the first kind that the description speaks of."""
        table, value = (self.dice.choice(self.vocabulary["word"]) for _ in range(2))
        match found[0].upper() if (found := re.search(r"\b(create|insert|select)\b", about, re.IGNORECASE)) else "":
            case "CREATE":
                return f"CREATE TABLE {table} (name TEXT, amount INTEGER)"
            case "INSERT":
                return f"INSERT INTO {table} (name) VALUES ('{value}')"
        return f"SELECT * FROM {table} WHERE name = '{value}'"

    def _other(self, options: Sequence[str]) -> str:
        """One that this call does not have yet, as long as there is one: nobody relates a thing to itself."""
        value = self.dice.choice([option for option in options if option not in self.used] or options)
        self.used.add(value)
        return value

    def _date(self) -> str:
        return f"{self.dice.randint(2019, 2031)}-{self.dice.randint(1, 12):02}-{self.dice.randint(1, 28):02}"

    def _time(self) -> str:
        return f"{self.dice.randint(7, 21):02}:{self.dice.choice((0, 15, 30, 45)):02}"


def hints(label: str) -> Iterator[str]:
    """Kinds of values for a parameter of this label, best first; none may fit."""
    for word in reversed(bare_words(label)):
        yield from (hint for hint, said in HINTS if word in said)


def human(name: str) -> str:
    """An identifier as a person says it: `entityType` and `entity_type` are "entity type"."""
    apart = re.sub(r"([a-z0-9])([A-Z])|([A-Z])([A-Z][a-z])", r"\1\3 \2\4", name)
    return " ".join(re.split(r"[\W_]+", apart)).strip().lower()


def bare_words(text: str) -> list[str]:
    """The words in lower case and singular."""
    return [singular(word) for word in re.findall(r"[a-z0-9]+", text.lower())]


def singular(text: str) -> str:
    """The last word without its plural ending."""
    if text.endswith("ies") and len(text) > 4:
        return text[:-3] + "y"
    if re.search(r"(ss|sh|ch|x|zz)es$", text):
        return text[:-2]
    return text[:-1] if re.search(r"[^sui]s$", text) and len(text) > 3 else text
