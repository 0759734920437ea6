"""English sentences from trees: noun phrases, the auxiliary chain, questions, negation."""

from __future__ import annotations

from tripel.data.phrasebook import english_forms as forms
from tripel.data.phrasebook.frames import Fixed, Frame, Slot
from tripel.data.phrasebook.lexicon import lexicon
from tripel.data.phrasebook.tokens import Token, literal
from tripel.data.phrasebook.tree import (
    ADJECTIVE,
    AUX,
    DETERMINER,
    MODAL,
    NOT,
    NOUN,
    OBJECT_PREPOSITION,
    OWNER_MARK,
    PREPOSITION,
    TAG,
    TO,
    VERB,
    Adverbial,
    Clause,
    Location,
    NounPhrase,
)


def noun_phrase(np: NounPhrase, case: str = "subject") -> list[Token]:
    """case: subject, object, or possessive ("Anna's", "my")."""
    if case == "possessive":
        return _possessive(np)
    match np.kind:
        case "pronoun" | "it":
            return [Token(_pronoun(np, case), (np.number,))]
        case "name":
            return [Token(np.name, (np.number,))]
        case "title":
            return [Token("Mr." if np.gender == "m" else "Mrs.", (np.number + 1,)), Token(np.name, (np.number,))]
        case "pair":
            first, second = np.members
            return [*noun_phrase(first, case), Token("and", (np.number,)), *noun_phrase(second, case)]
        case "relative":
            person = np.antecedent is not None and _is_person(np.antecedent)
            return [Token("who" if person and case == "subject" else "that", (np.number,))]
        case "who" | "whom" | "what" | "nobody":
            return [Token("who" if np.kind == "whom" else np.kind, (np.number,))]
        case "alone":
            return [Token(_owner_words(np, alone=True), (np.number, np.number + DETERMINER))]
    return _common(np)


def _is_person(np: NounPhrase) -> bool:
    return np.noun is None or bool(np.noun.classes & {"kin", "adult", "human", "child", "family", "partner", "baby"})


def _pronoun(np: NounPhrase, case: str) -> str:
    if np.person < 3:
        return (forms.SUBJECT if case == "subject" else forms.OBJECT)[np.person, np.is_plural]
    return forms.THIRD[np.english_gender()][0 if case == "subject" else 1]


def _owner_words(np: NounPhrase, alone: bool = False) -> str:
    owner = np.owner
    assert owner is not None
    if owner.person < 3:
        return (forms.POSSESSIVE_ALONE if alone else forms.POSSESSIVE)[owner.person, owner.is_plural]
    return forms.THIRD[owner.english_gender()][3 if alone else 2]


def _possessive(np: NounPhrase) -> list[Token]:
    if np.kind in ("pronoun", "it"):
        person, plural = np.person, np.is_plural
        word = forms.POSSESSIVE[person, plural] if person < 3 else forms.THIRD[np.english_gender()][2]
        return [Token(word, (np.number,))]
    words = noun_phrase(np, "object")
    mark = "'" if words[-1].text.endswith("s") and np.plural("en") else "'s"
    return [*words, Token(mark, (np.number + OWNER_MARK,), words[-1].concepts[0] if words[-1].concepts else -1)]


def _common(np: NounPhrase) -> list[Token]:
    assert np.noun is not None
    base = np.number
    text = np.noun.english_plural if np.plural("en") else np.noun.english
    words = [
        Token(word, (base + ADJECTIVE + k,), base)
        for k, a in enumerate(np.adjectives)
        for word in (forms.superlative(a.english, a.english_comparison) if np.is_superlative else (a.english,))
    ] + [Token(word, (base + NOUN,)) for word in text.split()]
    mark = (base + DETERMINER,)
    match np.determiner:
        case "a":
            return [Token(forms.indefinite(words[0].text), mark, base), *words]
        case "the":
            return [Token("the", mark, base), *words]
        case "this":
            return [Token("these" if np.plural("en") else "this", mark, base), *words]
        case "own":
            return [Token(_owner_words(np), mark, base), *words]
        case "number":
            return [Token(np.numeral[0], mark, base), *words]
        case "no":
            return [Token("no", mark, base), *words]
        case "gen":
            assert np.owner is not None
            return [*_possessive(np.owner), *words]
    return words


def location(place: Location) -> list[Token]:
    """at the station, to Berlin, from Italy."""
    mark = (place.number + PREPOSITION,)
    if place.region is not None:
        preposition = {"at": "in", "to": "to", "from": "from"}[place.relation]
        name = [Token(word, (place.number,)) for word in place.region.english.split()]
        return [Token(preposition, mark, place.number), *name]
    assert place.place is not None and place.phrase is not None
    preposition = place.place.english if place.relation == "at" else place.relation
    words = [Token(word, mark, place.phrase.number) for word in preposition.split()]
    return [*words, *noun_phrase(place.phrase, "object")]


def adverbial(node: Adverbial) -> list[Token]:
    if node.location is not None:
        return location(node.location)
    assert node.phrase is not None
    return literal(node.phrase.english, node.number, node.number)


def clause(c: Clause, form: str = "main") -> list[Token]:
    """form: main, question, inf, to (the infinitive with to), ing, imperative, share (no subject: "and turns it on")."""
    frame = c.predicate.frames["en"]
    subject_np = c.noun_phrases()[frame.subject]
    extracted = _extracted(c, frame)
    chain = _verb_chain(c, frame, subject_np, form)
    middle = [t for a in c.adverbials if _position(a) == "mid" and a is not c.front for t in adverbial(a)]
    end = [t for a in c.adverbials if _position(a) == "end" and a is not c.front for t in adverbial(a)]
    complements = _complements(c, frame, extracted)
    if c.negation in ("anymore", "yet"):
        complements = [*complements, Token(c.negation, (c.number + NOT,))]
    tail = [*complements, *end]
    if form in ("inf", "to", "ing", "imperative"):
        return [*chain, *middle, *tail]
    subject = [] if form == "share" else noun_phrase(subject_np)
    front = [*noun_phrase(extracted, "object")] if extracted is not None else []
    if c.front is not None:
        front = adverbial(c.front)
    if form == "question":
        first, others = _invertible(chain)
        return [*front, *first, *subject, *middle, *others, *tail]
    if c.is_contracted and subject_np.kind in ("pronoun", "it") and not middle:
        chain = _contract_auxiliary(chain, c)
    placed = _place_middle(chain, middle, frame)
    return [*front, *subject, *placed, *tail]


def _position(node: Adverbial) -> str:
    return node.phrase.english_position if node.phrase is not None else "end"


def _place_middle(chain: list[Token], middle: list[Token], frame: Frame) -> list[Token]:
    """Often eats; has already eaten; is often late: after the first auxiliary or be, else before the verb."""
    if not middle:
        return chain
    if len(chain) > 1 or frame.verb == "be":
        cut = 2 if len(chain) > 1 and chain[1].text in ("n't", "not") else 1
        return [*chain[:cut], *middle, *chain[cut:]]
    return [*middle, *chain]


def _extracted(c: Clause, frame: Frame) -> NounPhrase | None:
    """The slot that has moved to the front: a question word or an object relative."""
    for name, np in c.noun_phrases().items():
        if np.kind in ("relative", "what", "whom") and name != frame.subject:
            return np
    return None


def _finite(verb: str, np: NounPhrase, past: bool) -> str:
    person, plural = np.person, np.plural("en")
    if verb == "be":
        if past:
            return "were" if plural or person == 2 else "was"
        if person == 1 and not plural:
            return "am"
        return "are" if plural or person == 2 else "is"
    if past:
        return lexicon().english_verb(verb)[0]
    return forms.third_person(verb) if person == 3 and not plural else verb


_MODALS = {"can": "can", "must": "must", "should": "should", "may": "may"}
_TO_MODALS = {"have-to": "have", "want": "want", "like": "like", "prefer": "prefer"}


def _verb_chain(c: Clause, frame: Frame, subject: NounPhrase, form: str) -> list[Token]:
    """The words up to and with the verb."""
    verb = (c.number + VERB,)
    if form in ("inf", "to"):
        return [Token("to", (c.number + TO,), c.number + VERB)] * (form == "to") + [Token(frame.verb, verb)]
    if form == "ing":
        return [Token(forms.ing(frame.verb, lexicon().english_verb(frame.verb)[0]), verb)]
    if form == "imperative":
        negated = [Token("do", (c.number + AUX,)), Token("n't", (c.number + NOT,))] if c.negation else []
        return [*negated, Token(frame.verb, verb)]
    return _modal_chain(c, frame, subject, form) if c.modal else _tense_chain(c, frame, subject, form)


def _modal_chain(c: Clause, frame: Frame, subject: NounPhrase, form: str) -> list[Token]:
    mark, main = (c.number + MODAL,), Token(frame.verb, (c.number + VERB,))
    past = c.tense == "past"
    if c.modal == "would-like":
        return [Token("would", mark), Token("like", mark), Token("to", mark), main]
    if c.modal in _MODALS:
        word = "could" if past and c.modal == "can" else _MODALS[c.modal]
        return _negated([Token(word, mark)], c) + [main]
    word = _TO_MODALS[c.modal]
    tail = [Token("to", mark), main]
    if form == "question" or c.negation:
        return [*_negated([Token(_finite("do", subject, past), mark)], c), Token(word, mark), *tail]
    return [Token(_finite(word, subject, past), mark), *tail]


def _tense_chain(c: Clause, frame: Frame, subject: NounPhrase, form: str) -> list[Token]:
    verb, aux = (c.number + VERB,), (c.number + AUX,)
    past_form, participle = lexicon().english_verb(frame.verb)
    ing = forms.ing(frame.verb, past_form)
    match c.tense:
        case "progressive" | "was-doing":
            be = _negated([Token(_finite("be", subject, c.tense == "was-doing"), aux)], c)
            return [*be, Token(ing, verb)]
        case "perfect" | "just":
            have = _negated([Token(_finite("have", subject, False), aux)], c)
            return [*have, *([Token("just", aux)] if c.tense == "just" else []), Token(participle, verb)]
        case "will" | "would":
            return [*_negated([Token(c.tense, aux)], c), Token(frame.verb, verb)]
        case "going":
            be = _negated([Token(_finite("be", subject, False), aux)], c)
            return [*be, Token("going", aux), Token("to", aux), Token(frame.verb, verb)]
        case "hypothetical" if frame.verb == "be":
            return _negated([Token("were", verb + aux)], c)
    past = c.tense in ("past", "narrative", "used-to", "hypothetical")
    if frame.verb == "be":
        return _negated([Token(_finite("be", subject, past), verb + aux)], c)
    if form == "question" and subject.kind != "who" or c.negation not in ("", "never"):
        return [*_negated([Token(_finite("do", subject, past), aux)], c), Token(frame.verb, verb)]
    finite = Token(_finite(frame.verb, subject, past), verb + aux)
    return [Token("never", (c.number + NOT,)), finite] if c.negation == "never" else [finite]


_SHORT_NOT = {"can": "ca", "will": "wo"}


def _negated(first: list[Token], c: Clause) -> list[Token]:
    """does not, doesn't, has never; am and may keep the full form."""
    if not c.negation:
        return first
    mark = (c.number + NOT,)
    if c.negation == "never":
        return [*first, Token("never", mark)]
    word = first[0]
    if c.is_contracted and word.text not in ("am", "may"):
        return [word._replace(text=_SHORT_NOT.get(word.text, word.text)), Token("n't", mark)]
    if word.text == "can":
        return [Token("cannot", word.concepts + mark)]
    return [word, Token("not", mark)]


_CONTRACTED = {"am": "'m", "are": "'re", "is": "'s", "will": "'ll", "would": "'d"}


def _contract_auxiliary(chain: list[Token], c: Clause) -> list[Token]:
    """she's reading, I'll come, we'd like; not where n't already is, and not has (she's would be read as is)."""
    first = chain[0]
    negated = len(chain) > 1 and chain[1].text == "n't"
    if first.text in _CONTRACTED and not negated and c.tense != "hypothetical":
        return [first._replace(text=_CONTRACTED[first.text]), *chain[1:]]
    return chain


def _invertible(chain: list[Token]) -> tuple[list[Token], list[Token]]:
    """The part that goes before the subject: the first auxiliary, with n't; a full not stays behind the subject."""
    cut = 2 if len(chain) > 1 and chain[1].text == "n't" else 1
    return chain[:cut], chain[cut:]


def _complements(c: Clause, frame: Frame, extracted: NounPhrase | None) -> list[Token]:
    """A pronoun goes before the particle: turn it on, turn on the lamp."""
    tokens = [Token(frame.particle, (c.number + VERB,))] if frame.particle else []
    for part in _object_order(c, frame):
        if isinstance(part, Fixed):
            tokens.append(_fixed(c, part))
            continue
        words = _slot(c, part, extracted)
        filler = c.slots[part.name]
        is_pronoun = isinstance(filler, NounPhrase) and filler.is_pronoun()
        tokens = [*words, *tokens] if frame.particle and is_pronoun else [*tokens, *words]
    return tokens


def _object_order(c: Clause, frame: Frame) -> list[Slot | Fixed]:
    """Give Anna the book, but give it to Anna."""
    parts = list(frame.parts)
    receiver, given = frame.slot("I"), c.slots.get("O")
    if receiver is None or receiver.mark or parts[0] != receiver or not isinstance(given, NounPhrase):
        return parts
    return [*parts[1:], Slot("I", "to")] if given.kind in ("pronoun", "what", "relative") else parts


def _fixed(c: Clause, part: Fixed) -> Token:
    concept = c.number + VERB if part.tag is None else c.number + TAG + part.tag
    if part.is_own:
        subject = c.subject
        person, plural = subject.person, subject.is_plural
        text = forms.POSSESSIVE[person, plural] if person < 3 else forms.THIRD[subject.english_gender()][2]
        return Token(text, (), c.number + VERB)
    return Token(part.text, (concept,), c.number + VERB)


def _slot(c: Clause, part: Slot, extracted: NounPhrase | None) -> list[Token]:
    filler = c.slots[part.name]
    if isinstance(filler, Location):
        return location(filler)
    if part.mark == "'s":
        return noun_phrase(filler, "possessive")
    words = [] if filler is extracted else noun_phrase(filler, "object")
    if part.mark:
        words = [Token(part.mark, (c.number + OBJECT_PREPOSITION,), c.number + VERB), *words]
    return words
