"""Extracting fields from a text into a JSON object with the keys asked for."""

from __future__ import annotations

import json
import random
from typing import Any

from training.corpus import pools as p
from training.corpus.conversation import Split
from training.corpus.domain import Domain, Field
from training.corpus.extraction_domains import DOMAINS
from training.corpus.wording import Exchange, fill, instance, wordings

_ASK = wordings(
    """Extract [{k}|the fields {k}|the keys {k}] as JSON[.|:]
    Extract {k} from the text as a JSON object.
    Extract {k} from this text and answer in JSON.
    Answer in JSON with keys {k}.
    Answer in JSON with the keys {k}.
    Answer with a JSON object with keys {k}.
    Answer as JSON with the keys {k}.
    Return JSON with [keys|the keys|fields] {k}.
    Return a JSON object with [keys|the keys|the fields] {k}.
    Give me JSON with [keys|the keys|the fields] {k}.
    Give me a JSON object with {k}.
    Give me {k} [as|in] JSON.
    Write {k} as JSON.
    Write a JSON object with [keys|the keys|the fields] {k}.
    Turn [this|the text] into JSON with [keys|the keys|the fields] {k}.
    Turn the text into a JSON object with the keys {k}.
    Read the text and give {k} as JSON.
    Read the text and return JSON with the keys {k}.
    Find {k} in the text and [answer in|return] JSON.
    JSON with keys {k}[.|, please.|:]
    I need {k} as JSON.
    I need a JSON object with the keys {k}.
    Make a JSON object with the keys {k}.
    Put {k} into a JSON object.
    Which {k} does the text name? Answer in JSON.
    Please extract {k} and answer only with JSON.
    Only JSON, please: {k}.
    Can you extract {k} as JSON?
    From the text, extract {k} as a JSON object.
    Find {k} and [return|give|show|list] [them|it] as JSON.
    Find {k} [here|in this] and [answer|reply] with JSON.
    Take {k} from the text and [write|put] [them|it] [into JSON|down as JSON].
    Look for {k} and [write|give|print] [them|it] in JSON.
    Get {k} out of [this|the text] and [answer|reply] in JSON.
    Pick {k} and give [them|it] back as a JSON object.
    Search the text for {k} and [write|answer with] JSON.
    Collect {k} and make [them|it] a JSON object.
    Copy {k} from the text and write JSON.
    Read the text, then write {k} as a JSON object.
    Read [this|it] and [write|show] {k} as JSON.
    [List|Show|Print|Give] {k} [as|in] JSON, please.
    Tell me {k} in JSON.
    What are {k}? [Answer|Reply] in JSON.
    Extract these [fields|keys|values] as JSON: {k}.
    Give me [these|the following] [fields|keys] as JSON: {k}.
    The [keys|fields] are {k}. Answer in JSON.
    Reply with JSON that has [only |]{k}.
    I want {k} [from this|from the text|] as JSON.
    I want JSON with the [keys|fields] {k}.
    Use the keys {k} and answer with a JSON object.
    Please give {k} from [this|the text] as JSON.
    Make this into JSON with {k}.
    [Could|Can|Will|Would] you [please |]fetch {k} from [this|it|the text] and [send|hand|pass] me [JSON|a JSON object]?
    [Please |Now |]gather {k} from [this|what I wrote|the lines] and [send|hand|show] [me|us] [JSON|some JSON].
    [Please |Now |]pull {k} from [this|it|my message], [then|and] [type|print|output] [JSON|plain JSON|one JSON object].
    [Please |You should |]spot {k} in [this|that|the text] [and|, then] [type|output|deliver] [JSON|valid JSON].
    [Try to |Please |]note {k} from [this|the words|the note]; [use|speak|type] [JSON|JSON only|nothing but JSON].
    Grab {k} [off|from|out of] [this|it|the above] [as|in|into] [JSON|a JSON object].
    [Dig up|Track down|Work out] {k} [here|in the text|from this], [as|in] JSON[, please|].
    [I would like|We need|My boss wants|They ask for] [JSON|some JSON|an object in JSON] [with|about|that names] {k}.
    [The program needs|I am after|We look for] {k} [of|from|in] [this|the text], [as|in] JSON.
    JSON [of|for|about] {k}[, from this text|, taken from the text|, nothing else|].
    [Build|Form|Create|Produce] [JSON|a JSON object|an answer in JSON] [from this|out of it|] [by|using|holding] {k}.
    [Compose|Prepare|Print] [JSON|one JSON object] [from the text |]that [holds|has|shows|contains] {k}.
    [Change|Transform|Map|Rewrite] [this|it|the text|that] [to|into|as] JSON[, keeping|, naming|: keys| with] {k}.
    [Bring|Turn] the text [below|above|here] [to|into] JSON, [by|with|for] the keys {k}.
    For [this|the] text, [give|name|note] {k}. [Use|Just|Only] JSON.
    {k}: [find|take|read] [them|these] [here|in the text] and [use|write|print] JSON.
    [Keys|Fields|Wanted|Needed]: {k}. [Write|Print|Use|Return] JSON.
    [Answer|Respond|Reply|Come back] with {k} [in|as|inside] [JSON|a JSON object].
    [Respond|Answer|Speak] in JSON [holding|about|that has|made of] {k}.
    [What does the text say|What do you read here|What is said] about {k}? [Use|Answer in|Only] JSON.
    As JSON: {k}.""",
    """Extract the following fields as JSON: {k}.
    Please return {k} from the text as a JSON object.
    Read this and answer with JSON that has the keys {k}.
    I want a JSON object with the fields {k} from this text.
    Find {k} and write them as a JSON object.
    Turn this into a JSON object that has the keys {k}.""",
)
_SCALAR = {True: "yes", False: "no"}


def _told(value: Any) -> str:
    if isinstance(value, list):
        return f"{', '.join(value[:-1])} and {value[-1]}"
    return str(value)


def _sentence(rng: random.Random, split: Split, field: Field, value: Any, subject: str) -> str:
    options = field.no if value is False else field.yes
    if split == "train" and len(options) > 3:
        options = options[:-1] + field.more
    text = rng.choice(options)
    if not text.startswith("{s}"):
        subject = subject[:1].lower() + subject[1:]
        subject = {"she": "her", "he": "him"}.get(subject, subject)
    return fill(text.replace("She's", "Her"), s=subject, v=_told(value))


def _mend(text: str) -> str:
    return text.replace("She's", "Her").replace("He's", "His").replace("It's ", "Its ")


Filled = list[tuple[str, Field, Any]]


def _draw(rng: random.Random, domain: Domain) -> Filled:
    """A key, field and value each; keys differ from one another."""
    chosen: Filled = []
    for field in (domain.head, *rng.sample(domain.fields, min(len(domain.fields), rng.choice((1, 2, 2, 3, 3, 4))))):
        key = rng.choice(field.keys)
        if all(key != other and field is not same for other, same, _ in chosen):
            chosen.append((key, field, field.make(rng)))
    return chosen


def _values(filled: Filled) -> str:
    return str([(key, value) for key, _, value in filled])


def _prose(rng: random.Random, split: Split, domain: Domain, filled: Filled) -> str:
    subject = rng.choice(domain.subjects)
    head, rest = filled[0], list(filled[1:])
    rng.shuffle(rest)
    sentences = [_sentence(rng, split, head[1], head[2], "It")]
    name = str(head[2])
    if domain is DOMAINS[0] and rest and rng.random() < 0.45:  # "Anna Berg is 34 years old." names the person at once
        first = rest.pop(0)
        sentences = [_sentence(rng, split, first[1], first[2], name)]
        if name not in sentences[0]:
            sentences.insert(0, _sentence(rng, split, head[1], head[2], "It"))
    sentences += [_sentence(rng, split, field, value, subject) for _, field, value in rest]
    text = _mend(" ".join(s[:1].upper() + s[1:] for s in sentences))
    if len(sentences) > 1 and rng.random() < 0.35:  # join two sentences that share their subject
        again = f". {subject} "
        text = text.replace(again, rng.choice((" and ", ", ")) if text.count(again) == 1 else " and ", 1)
    return text


def _listed(rng: random.Random, filled: Filled) -> str:
    rows = [(key, _SCALAR[value] if isinstance(value, bool) else _told(value)) for key, _, value in filled]
    rng.shuffle(rows)
    mark, gap = rng.choice(((": ", "\n"), (": ", ", "), (" = ", "; "), (": ", ". ")))
    return gap.join(f"{key.replace('_', ' ').capitalize() if gap != '; ' else key}{mark}{value}" for key, value in rows)


def _keys(rng: random.Random, keys: list[str]) -> str:
    style = rng.randrange(5)
    if style == 0:
        return ", ".join(f'"{k}"' for k in keys)
    if style == 1:
        return ", ".join(keys)
    quote = '"' if style == 2 else ""
    quoted = [f"{quote}{k}{quote}" for k in keys]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " and " + quoted[-1]


def _question(rng: random.Random, split: Split, text: str, keys: list[str]) -> str:
    told = _ASK.pick(rng, split)
    if rng.random() < 0.15:
        told = told.lower()
    told = fill(told, k=_keys(rng, keys))
    if rng.random() < 0.1:
        text = f'"{text}"'
    if told.endswith(":"):
        return f"{told}{rng.choice((' ', chr(10)))}{text}"
    layout = rng.randrange(6)
    if layout < 3:
        return f"{told}{rng.choice((' ', chr(10), chr(10) * 2, chr(10) + 'Text: '))}{text}"
    if layout == 3:
        return f"Text: {text}\n{told}"
    return f"{text}{rng.choice((' ', chr(10), chr(10) * 2))}{told}"


def _generic(rng: random.Random) -> list[tuple[str, str, Any]]:
    """Keys and values without a domain, keys partly invented: only copying helps."""
    rows: list[tuple[str, str, Any]] = []
    for _ in range(rng.choice((2, 3, 3, 4))):
        key = p.word(rng) if rng.random() < 0.8 else p.invented(rng)
        value: Any = rng.choice((p.word(rng), rng.randint(0, 999), rng.choice(p.ADJECTIVES), p.first_name(rng)))
        if all(key != other for other, _, _ in rows):
            rows.append(
                (
                    key,
                    rng.choice(("The {k} is {v}.", "The {k} is {v}.", "The value of {k} is {v}.", "{k}: {v}.")),
                    value,
                )
            )
    return rows


def generic(rng: random.Random, split: Split) -> Exchange:
    """Facts about things never heard of."""
    rows = instance(rng, split, _generic)
    text = " ".join(fill(sentence, k=key, v=value) for key, sentence, value in rows)
    asked = rng.sample(rows, rng.randint(1, len(rows)))
    answer = json.dumps({key: value for key, _, value in asked})
    return Exchange("json", _question(rng, split, text[:1].upper() + text[1:], [key for key, _, _ in asked]), answer)


def extraction(rng: random.Random, split: Split) -> Exchange:
    """A text of one domain; some of its fields are asked for, now and then one that it does not name (null)."""
    domain = rng.choice(DOMAINS) if rng.random() > 0.2 else DOMAINS[0]
    filled = instance(rng, split, lambda r: _draw(r, domain), _values)
    text = _prose(rng, split, domain, filled) if rng.random() < 0.82 else _listed(rng, filled)
    asked = list(filled)
    if rng.random() < 0.5:
        asked = rng.sample(filled, rng.randint(1, len(filled)))
    pairs = [(key, value) for key, _, value in asked]
    if rng.random() < (0.16 if split == "train" else 0.08):
        missing = [
            f
            for f in domain.fields
            if all(f.make is not g.make and not set(f.keys) & set(g.keys) for _, g, _ in filled)
        ]
        if missing:
            pairs.insert(rng.randint(0, len(pairs)), (missing[0].keys[0], None))
    answer = json.dumps(dict(pairs), ensure_ascii=False)
    return Exchange("json", _question(rng, split, text, [key for key, _ in pairs]), answer)


MAKERS = ((extraction, 0.8), (generic, 0.2))
