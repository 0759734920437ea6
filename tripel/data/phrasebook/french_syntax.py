"""French clauses from trees: clitic pronouns, negation around the verb, compound tenses and their agreement.

subject  ne  clitics  conjugated verb  pas  adverb  (de) (clitics) participle or infinitive  complements  adverbials
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tripel.data.phrasebook import french_forms as forms
from tripel.data.phrasebook import french_phrases as phrases
from tripel.data.phrasebook.frames import Fixed, Frame, Slot
from tripel.data.phrasebook.french_forms import FrenchVerb
from tripel.data.phrasebook.lexicon import lexicon
from tripel.data.phrasebook.tokens import Token
from tripel.data.phrasebook.tree import (
    AUX,
    MODAL,
    NOT,
    OBJECT_PREPOSITION,
    TAG,
    TO,
    VERB,
    Clause,
    Location,
    NounPhrase,
    Unsayable,
)

_Conjugation = Callable[[FrenchVerb, int, bool], str]

MODALS: dict[str, tuple[str, _Conjugation]] = {
    "can": ("pouvoir", forms.present),
    "may": ("pouvoir", forms.present),
    "must": ("devoir", forms.present),
    "have-to": ("devoir", forms.present),
    "should": ("devoir", forms.conditional),
    "want": ("vouloir", forms.present),
    "would-like": ("vouloir", forms.conditional),
    "like": ("aimer", forms.present),
    "prefer": ("préférer", forms.present),
}
_NEGATION = {"not": ("pas",), "never": ("jamais",), "anymore": ("plus",), "yet": ("pas", "encore")}


@dataclass
class _Parts:
    """A clause taken apart: what goes before the verb, after it, and what has moved to the front."""

    clitics: list[Token]
    complements: list[Token]
    extracted: list[Token]
    preceding_object: NounPhrase | None = None  # the direct object before a participle, which agrees with it


def clause(c: Clause, form: str = "main") -> list[Token]:
    """form: main, question (est-ce que), inf, "inf de" (with that preposition), imperative, share (no subject), subj
    (subjunctive), future, invert (the subject behind the verb)."""
    frame = c.predicate.frames["fr"]
    subject_np = c.noun_phrases()[frame.subject]
    parts = _parts(c, frame, subject_np)
    verb = lexicon().french_verb(frame.verb)
    ending = [t for a in c.adverbials if _position(a) == "end" and a is not c.front for t in phrases.adverbial(a)]
    if form == "imperative":
        return [*_imperative(c, verb, subject_np, parts), *parts.complements, *ending]
    if form.startswith("inf"):
        governed = [Token(word, (c.number + TO,), c.number + VERB) for word in form.split()[1:]]
        negation = [Token("ne", (c.number + NOT,)), *_second_negation(c)] if c.negation else []
        main = Token(verb.infinitive, (c.number + VERB,))
        return [*governed, *negation, *parts.clitics, main, *parts.complements, *ending]
    group = _verb_group(c, verb, frame, subject_np, parts, form)
    subject = [] if form == "share" else phrases.subject(subject_np)
    if form == "invert":  # Où est la gare ?
        return [*group, *subject, *parts.complements, *ending]
    rest = [*group, *parts.complements, *ending]
    if form == "question" and subject_np.kind != "who":
        mark = (c.number + AUX,) if not c.modal else (c.number + MODAL,)
        return [*parts.extracted, Token("est-ce", mark), Token("que", mark), *subject, *rest]
    front = [*phrases.adverbial(c.front), Token(",")] if c.front is not None else []
    return [*front, *parts.extracted, *subject, *rest]


def _position(node: object) -> str:
    phrase = getattr(node, "phrase", None)
    return phrase.french_position if phrase is not None else "end"


def _second_negation(c: Clause) -> list[Token]:
    return [Token(word, (c.number + NOT,)) for word in _NEGATION[c.negation]] if c.negation else []


def _verb_group(
    c: Clause, verb: FrenchVerb, frame: Frame, subject: NounPhrase, parts: _Parts, form: str
) -> list[Token]:
    """ne, clitics, the conjugated verb, pas, adverbs, and the participle or infinitive."""
    person, plural = subject.person, subject.plural("fr") or subject.is_formal
    finite, tail, clitics_on_tail = _conjugated(c, verb, frame, subject, parts, person, plural, form)
    is_negated = c.negation or subject.kind == "nobody"
    ne = [Token("ne", (c.number + NOT,) if c.negation else (), subject.number)] if is_negated else []
    inner = [a for a in c.adverbials if _position(a) == "mid" and a is not c.front]
    inner.sort(key=lambda a: a.kind == "manner")  # il a déjà soigneusement repassé la chemise
    before = [] if clitics_on_tail else parts.clitics
    if clitics_on_tail:  # il vient de le repasser soigneusement: how it is done stands behind the infinitive
        manner = [t for a in inner if a.kind == "manner" for t in phrases.adverbial(a)]
        inner = [a for a in inner if a.kind != "manner"]
        tail = [*tail[:-1], *parts.clitics, tail[-1], *manner]
    middle = [t for a in inner for t in phrases.adverbial(a)]
    return [*ne, *before, finite, *_second_negation(c), *middle, *tail]


def _conjugated(
    c: Clause, verb: FrenchVerb, frame: Frame, subject: NounPhrase, parts: _Parts, person: int, plural: bool, form: str
) -> tuple[Token, list[Token], bool]:
    """(conjugated verb, what follows it, whether object clitics stand before the last word of that)."""
    main, aux, modal = (c.number + VERB,), (c.number + AUX,), (c.number + MODAL,)
    infinitive = Token(verb.infinitive, main)
    if c.modal:
        return _modal(c, person, plural, modal, infinitive)
    if form == "future":  # dès que takes the future where English has the present
        return Token(forms.future(verb, person, plural), main + aux), [], False
    if form == "subj":
        return Token(forms.subjunctive(verb, person, plural), main + aux), [], False
    match c.tense:
        case "going":
            return Token(forms.present(lexicon().french_verb("aller"), person, plural), aux), [infinitive], True
        case "just":
            finite = Token(forms.present(lexicon().french_verb("venir"), person, plural), aux)
            return finite, [Token("de", aux), infinitive], True
        case "will" | "would":
            conjugate = forms.future if c.tense == "will" else forms.conditional
            return Token(conjugate(verb, person, plural), main + aux), [], False
    # a state in the past is seen from inside: she was tired, elle était fatiguée
    was_state = c.tense in ("past", "narrative") and "s" in c.predicate.tenses
    if was_state or c.tense in ("was-doing", "used-to", "hypothetical"):
        return Token(forms.imperfect(verb, person, plural), main + aux), [], False
    if c.tense in ("past", "narrative", "perfect"):
        return _compound(verb, frame, subject, parts, person, plural, main, aux)
    return Token(forms.present(verb, person, plural), main + aux), [], False


def _modal(
    c: Clause, person: int, plural: bool, mark: tuple[int, ...], infinitive: Token
) -> tuple[Token, list[Token], bool]:
    name, conjugate = MODALS[c.modal]
    verb = lexicon().french_verb(name)
    if c.tense == "past" and c.modal in ("can", "have-to"):
        have = lexicon().french_verb("avoir")
        return Token(forms.present(have, person, plural), mark), [Token(forms.participle(verb), mark), infinitive], True
    if c.tense == "past":
        conjugate = forms.imperfect
    return Token(conjugate(verb, person, plural), mark), [infinitive], True


def _compound(
    verb: FrenchVerb,
    frame: Frame,
    subject: NounPhrase,
    parts: _Parts,
    person: int,
    plural: bool,
    main: tuple[int, ...],
    aux: tuple[int, ...],
) -> tuple[Token, list[Token], bool]:
    """Passé composé. With être the participle agrees with the subject, with avoir with a direct object that precedes it."""
    name = "être" if frame.reflexive else verb.auxiliary
    participle = forms.participle(verb)
    agrees_with = subject if name == "être" and frame.reflexive != "dat" else None
    if name == "avoir":
        agrees_with = parts.preceding_object
    if agrees_with is not None:
        participle = forms.participle_agreement(participle, phrases.gender_of(agrees_with), agrees_with.plural("fr"))
    helper = forms.present(lexicon().french_verb(name), person, plural)
    return Token(helper, aux), [Token(participle, main)], False


def _parts(c: Clause, frame: Frame, subject: NounPhrase) -> _Parts:
    found = _Parts([], [], [])
    if frame.reflexive:
        plural = subject.plural("fr") or subject.is_formal
        found.clitics.append(Token(forms.clitic("reflexive", subject.person, plural, None), (), c.number + VERB))
    for part in frame.parts:
        if isinstance(part, Fixed):
            found.complements += _fixed(c, part, subject)
        else:
            _slot(c, part, found)
    found.clitics.sort(key=lambda token: forms.CLITIC_ORDER.index(token.text))
    return found


def _fixed(c: Clause, part: Fixed, subject: NounPhrase) -> list[Token]:
    concepts = (c.number + VERB if part.tag is None else c.number + TAG + part.tag,)
    head = c.number + VERB
    if part.is_adjective:
        return [Token(word, concepts, head) for word in phrases.agreeing_word(part.text, subject).split()]
    if part.forms is not None:
        masculine, feminine = part.forms
        text = masculine if masculine == feminine else part.forms[phrases.gender_of(subject) == "f"]
        return [Token(text, concepts, head)]
    if part.gender:  # a mass noun of the predicate: de la chance, pas de chance
        article = [Token("de", (), head)] if _negates_articles(c) else phrases.partitive_article(part.gender, head)
        return [*article, Token(part.text, concepts, head)]
    if part.text in ("un", "une") and part.tag is None and _negates_articles(c):
        return [Token("de", concepts, head)]  # prendre une douche, ne pas prendre de douche
    # "le temps", "à la tête" are written out in the table: their articles contract like any other
    return [Token(part.text, concepts, head, is_article=part.text in ("le", "la", "les"))]


def _negates_articles(c: Clause) -> bool:
    """Whether un, du, des become de: not when it is the liking that is negated (il n'aime pas faire du vélo)."""
    return c.subject.kind == "nobody" or (bool(c.negation) and c.modal not in ("like", "prefer"))


def _slot(c: Clause, part: Slot, found: _Parts) -> None:
    filler = c.slots[part.name] if part.name != "S" else c.subject
    if isinstance(filler, Location):
        found.complements += phrases.location(filler)
        return
    preposition, _, generic = part.mark.partition("+")
    if preposition in ("le", "0"):
        preposition, generic = "", preposition
    if filler.kind in ("relative", "what", "whom"):
        _extract(c, filler, preposition, found)
    elif filler.is_pronoun() and preposition != "than":
        _pronoun(c, filler, preposition, found)
    elif preposition in ("", "than"):
        article = (
            "de" if _negates_articles(c) and preposition == "" and not generic and filler.is_indefinite() else generic
        )
        found.complements += phrases.noun_phrase(filler, article)
    elif filler.kind == "pair":  # à sa femme et à moi: each has the preposition
        first, second = filler.members
        link = Token("et", (filler.number,))
        mark = _preposition(c, preposition)
        found.complements += [*mark, *phrases.noun_phrase(first), link, *mark, *phrases.noun_phrase(second)]
    else:
        governed = generic or ("de" if preposition.split()[-1] == "de" and filler.determiner == "bare" else "")
        words = phrases.noun_phrase(filler, governed)
        if governed == "de":  # de + des, de + du: only de is left
            words = words[1:]
        found.complements += [*_preposition(c, preposition), *words]


def _preposition(c: Clause, text: str) -> list[Token]:
    return [Token(word, (c.number + OBJECT_PREPOSITION,), c.number + VERB) for word in text.removesuffix("!").split()]


def _extract(c: Clause, np: NounPhrase, preposition: str, found: _Parts) -> None:
    """que of a relative clause, qu'est-ce que, qui est-ce que, à qui est-ce que."""
    if np.kind == "what":
        if preposition:
            raise Unsayable("de quoi, à quoi")
        found.extracted = [Token("que", (np.number,))]
    elif np.kind == "whom":
        if preposition not in ("", "à"):
            raise Unsayable("a question word after this preposition")
        found.extracted = [*(_preposition(c, preposition) if preposition else []), Token("qui", (np.number,))]
    else:
        if preposition:
            raise Unsayable("dont, auquel")
        found.extracted = [Token("que", (np.number,))]
        found.preceding_object = np


def _pronoun(c: Clause, np: NounPhrase, preposition: str, found: _Parts) -> None:
    is_thing = (
        np.person == 3
        and np.antecedent is not None
        and np.antecedent.noun is not None
        and (np.antecedent.noun.gender is None)
    )
    mark, plural = (np.number,), np.plural("fr") or np.is_formal
    if preposition == "":
        gender = phrases.gender_of(np) if np.person == 3 else None
        found.clitics.append(Token(forms.clitic("direct", np.person, plural, gender), mark))
        found.preceding_object = np
    elif preposition == "à":
        text = "y" if is_thing else forms.clitic("indirect", np.person, plural, None)
        found.clitics.append(Token(text, mark))
    elif preposition == "de" and is_thing:
        found.clitics.append(Token("en", mark))
    elif is_thing or preposition.endswith("!"):
        raise Unsayable("a stressed pronoun for a thing")
    else:
        found.complements += [*_preposition(c, preposition), *phrases.noun_phrase(np)]


def _imperative(c: Clause, verb: FrenchVerb, subject: NounPhrase, parts: _Parts) -> list[Token]:
    """Donne-moi, dépêchez-vous; ne me donne pas."""
    text = forms.imperative(verb, subject.person, subject.plural("fr") or subject.is_formal)
    main: tuple[int, ...] = (c.number + VERB,)
    if c.negation:
        return [Token("ne", (c.number + NOT,)), *parts.clitics, Token(text, main), *_second_negation(c)]
    concepts = main
    direct_first = sorted(parts.clitics, key=lambda t: t.text not in ("le", "la", "les"))
    for position, token in enumerate(direct_first):
        is_last = position == len(direct_first) - 1
        text += "-" + ({"me": "moi", "te": "toi"}.get(token.text, token.text) if is_last else token.text)
        concepts += token.concepts
    return [Token(text, concepts)]
