"""German clauses from trees: where the verb stands, and the order of what is between it and its other half.

    Morgen | wird | er  ihr  vielleicht  den Brief  nicht | schreiben können      (main clause, verb second)
    dass          | er  ihr  vielleicht  den Brief  nicht   schreiben können wird (subordinate clause, verb last)
    front    finite  middle field                           verbal end

The middle field is filled by rank: subject, pronouns (accusative before dative), names, time, frequency, dative,
gern, definite accusative, nicht, manner, place, indefinite accusative, prepositional objects, fixed words and directions.
"""

from __future__ import annotations

from tripel.data.phrasebook import german_forms as forms
from tripel.data.phrasebook import german_phrases as phrases
from tripel.data.phrasebook.frames import Fixed, Frame, Slot
from tripel.data.phrasebook.german_forms import GermanVerb
from tripel.data.phrasebook.lexicon import lexicon
from tripel.data.phrasebook.tokens import Token
from tripel.data.phrasebook.tree import (
    AUX,
    DETERMINER,
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

# ranks of the middle field
(
    PRONOUN_ACC,
    REFLEXIVE,
    PRONOUN_DAT,
    FREQ_NOW,
    NAME,
    TIME,
    FREQ,
    DATIVE,
    GLADLY,
    DEFINITE,
    NICHT,
    NOT_GLADLY,
    MANNER,
    PLACE,
    INDEFINITE,
    PREPOSITIONAL,
    END,
) = range(17)

MODALS = {  # modal of the tree: (infinitive, whether the present is said in the preterite: er sollte)
    "can": ("können", False),
    "must": ("müssen", False),
    "have-to": ("müssen", False),
    "should": ("sollen", True),
    "want": ("wollen", False),
    "may": ("dürfen", False),
    "would-like": ("mögen", False),
}
ADVERB_MODALS = {"like": "gern", "prefer": "lieber"}
# verbs whose past is the preterite even where one talks
_PRETERITE_PAST = {"sein", "haben", "wissen", "mögen", "heißen", "werden"}


def clause(c: Clause, form: str = "main") -> list[Token]:
    """form: main (verb second), front (verb first: after a fronted word, or a question), last, zu, um (um ... zu), inf,
    imperative, share (main without subject: "und macht das Licht an")."""
    frame = c.predicate.frames["de"]
    verb = lexicon().german_verb(frame.verb)
    subject_np, subject = _subject(c, frame)
    middle, extracted = _middle_field(c, frame, subject_np)
    finite, end = _verbal_complex(c, verb, subject_np, is_last=form == "last")
    weak_dative = frame.subject == "O" and form != "main" and c.subject.is_pronoun()  # weil dir der Film gefällt
    weak_reflexive = (  # weil sich Lena beeilt
        (form in ("front", "last") or (form == "main" and c.front is not None))
        and subject_np.kind in ("noun", "name", "title", "pair", "nobody")
        and middle[:1]
        and middle[0].text == "sich"
    )
    if weak_dative or weak_reflexive:
        subject, middle = [middle[0], *subject], middle[1:]
    front = extracted
    if c.front is not None and form == "main":
        front = phrases.adverbial(c.front)
    match form:
        case "main" if not front:
            return [*subject, finite, *middle, *end]
        case "share":
            return [finite, *middle, *end]
        case "main" | "front":
            return [*front, finite, *subject, *middle, *end]
        case "last":
            return [*front, *subject, *middle, *end, finite]
        case "imperative":
            return _imperative(c, verb, subject_np, middle)
    if form == "um":
        middle = [Token("um", (c.number + TO,), c.number + VERB), *middle]
    return [*middle, *_infinitive(c, verb, with_zu=form in ("zu", "um"))]


def _subject(c: Clause, frame: Frame) -> tuple[NounPhrase, list[Token]]:
    """The phrase the verb agrees with, and its words. An experiencer in the dative (mir ist kalt) governs no agreement."""
    slot, _, override = frame.subject.partition("+")
    np = c.noun_phrases()[slot]
    words = phrases.noun_phrase(np, frame.subject_case, override=override)
    if frame.subject_case != "nom":
        np = NounPhrase(np.number, "it", gender="n")
    return np, words


def _middle_field(c: Clause, frame: Frame, subject: NounPhrase) -> tuple[list[Token], list[Token]]:
    """(the middle field without the subject, what moved to the front: a relative or question word)."""
    field: list[tuple[int, list[Token]]] = []
    extracted: list[Token] = []
    kein = _takes_kein(c, frame)
    if frame.reflexive:
        word = forms.reflexive(frame.reflexive, subject.person, subject.plural("de"), subject.is_formal)
        field.append((REFLEXIVE, [Token(word, (), c.number + VERB)]))
    for position, part in enumerate(frame.parts):
        if isinstance(part, Fixed):
            field.append(_fixed(c, part, subject, kein))
            continue
        rank, words, moved = _slot(c, part, kein)
        if rank == PREPOSITIONAL and any(isinstance(p, Fixed) for p in frame.parts[:position]):
            rank = END  # stolz auf ihn, Angst vor Hunden: the phrase depends on the word before it
        if moved:
            extracted = words
        else:
            field.append((rank, words))
    for node in c.adverbials:
        if node is not c.front:
            rank = {"time": TIME, "freq": FREQ, "manner": MANNER, "place": PLACE}[node.kind]
            if node.phrase is not None and "already" in node.phrase.groups:
                rank = NICHT  # Sie hat Carla die Karte schon gezeigt
            field.append((rank, phrases.adverbial(node)))
    field += _particles(c, kein)
    field.sort(key=lambda item: item[0])
    return [token for _, words in field for token in words], extracted


def _particles(c: Clause, kein: bool) -> list[tuple[int, list[Token]]]:
    """nicht, nie, mehr, noch, gern, gerade."""
    mark = (c.number + NOT,)
    particles = []
    if c.negation == "never":
        particles.append((FREQ, [Token("nie", mark)]))
    elif c.negation == "yet" and kein:  # noch keine Kartoffeln, but das Tor noch nicht
        particles.append((FREQ, [Token("noch", mark)]))
    elif c.negation == "anymore" and kein:
        particles.append((INDEFINITE, [Token("mehr", mark)]))
    elif c.negation and not kein:
        words = {"yet": "noch nicht", "anymore": "nicht mehr"}.get(c.negation, "nicht")
        particles.append((NICHT, [Token(word, mark) for word in words.split()]))
    if c.modal in ADVERB_MODALS:
        # gern follows whom it is about, lieber goes before: Sie besucht Eva gern. Sie besucht lieber Eva.
        rank = NOT_GLADLY if c.negation else FREQ_NOW if c.modal == "prefer" else GLADLY
        particles.append((rank, [Token(ADVERB_MODALS[c.modal], (c.number + MODAL,))]))
    if c.tense in ("just", "was-doing"):
        particles.append((FREQ_NOW, [Token("gerade", (c.number + AUX,))]))
    return particles


def _takes_kein(c: Clause, frame: Frame) -> bool:
    """Whether the negation is carried by kein: an indefinite accusative object or a fixed noun without article."""
    if c.negation in ("", "never") or c.modal in ADVERB_MODALS:
        return False
    for part in frame.parts:
        if isinstance(part, Fixed) and part.gender:
            return True
        if isinstance(part, Slot) and part.mark in ("acc", "acc0"):
            np = c.slots[part.name]
            if isinstance(np, NounPhrase) and (np.is_indefinite() or part.mark == "acc0"):
                return True
    return False


def _fixed(c: Clause, part: Fixed, subject: NounPhrase, kein: bool) -> tuple[int, list[Token]]:
    concept = c.number + VERB if part.tag is None else c.number + TAG + part.tag
    head = c.number + VERB
    if part.forms is not None:
        gender = c.subject.grammatical_gender("de")
        if gender not in ("m", "f"):
            gender = c.subject.english_gender()
        if gender not in ("m", "f"):
            raise Unsayable("an occupation of someone whose gender is not shown")
        return END, [Token(part.forms[gender == "f"], (concept,), head)]
    if part.gender and kein:
        article = Token(forms.ein_word("kein", "acc", part.gender), (c.number + NOT,), head)
        return INDEFINITE, [article, Token(part.text, (concept,), head)]
    if part.text == "es":
        return PRONOUN_ACC, [Token("es", (concept,), head)]
    return (DEFINITE if part.is_definite else END), [Token(part.text, (concept,), head)]


def _slot(c: Clause, part: Slot, kein: bool) -> tuple[int, list[Token], bool]:
    """(rank, words, whether it moves to the front)."""
    filler = c.slots[part.name] if part.name != "S" else c.subject
    if isinstance(filler, Location):
        return END, phrases.location(filler, part.mark), False
    moved = filler.kind in ("relative", "what", "whom")
    case, _, override = part.mark.partition("+")
    if case not in ("nom", "acc", "acc0", "dat"):
        return PREPOSITIONAL, _prepositional(c, part, filler, moved), moved
    bare = case == "acc0"
    carries_kein = kein and case in ("acc", "acc0") and (filler.is_indefinite() or bare)
    override = "0" if bare and not carries_kein else override
    words = phrases.noun_phrase(filler, case.removesuffix("0"), override=override, with_kein=carries_kein)
    if carries_kein:
        words[0] = words[0]._replace(concepts=(c.number + NOT, filler.number + DETERMINER))
    return _rank(filler, case, bare), words, moved


def _rank(np: NounPhrase, case: str, bare: bool) -> int:
    if case == "nom":
        return END
    if np.is_pronoun():
        return PRONOUN_ACC if case == "acc" else PRONOUN_DAT
    if np.kind in ("name", "title"):
        return NAME
    if case == "dat":
        return DATIVE
    if bare or np.is_indefinite() or np.determiner == "number":
        return INDEFINITE
    return DEFINITE


def _prepositional(c: Clause, part: Slot, np: NounPhrase, moved: bool) -> list[Token]:
    if np.kind == "what" or (np.is_pronoun() and np.person == 3 and np.english_gender() in ("n", "p")):
        raise Unsayable("darauf, womit")
    words = phrases.noun_phrase(np, part.case)
    return phrases.with_preposition(part.preposition, words, c.number + OBJECT_PREPOSITION, c.number + VERB)


def _verbal_complex(c: Clause, verb: GermanVerb, subject: NounPhrase, *, is_last: bool) -> tuple[Token, list[Token]]:
    """(finite verb, what closes the clause). In a verb-last clause a separable prefix is joined to the finite verb."""
    person, plural = subject.person, subject.plural("de") or subject.is_formal
    if subject.is_formal:
        person = 3
    main, aux, modal = (c.number + VERB,), (c.number + AUX,), (c.number + MODAL,)
    if c.modal in MODALS:
        text = _modal_form(c, person, plural)
        return Token(text, modal), [Token(forms.infinitive(verb), main)]
    tense = _german_tense(c, verb)
    if tense == "perfect":
        helper = lexicon().german_verb(verb.auxiliary)
        return Token(forms.present(helper, person, plural), aux), [Token(forms.participle(verb), main)]
    if tense in ("future", "would"):
        helper = lexicon().german_verb("werden")
        finite = (forms.present if tense == "future" else forms.would)(helper, person, plural)
        return Token(finite, aux), [Token(forms.infinitive(verb), main)]
    conjugate = {"present": forms.present, "preterite": forms.preterite, "hypothetical": forms.would}[tense]
    finite = conjugate(verb, person, plural)
    if verb.prefix and is_last:
        return Token(verb.prefix + finite, main + aux), []
    return Token(finite, main + aux), [Token(verb.prefix, main)] if verb.prefix else []


def _modal_form(c: Clause, person: int, plural: bool) -> str:
    infinitive, in_preterite = MODALS[c.modal]
    verb = lexicon().german_verb(infinitive)
    if c.modal == "would-like":
        return forms.would(verb, person, plural)
    if c.tense == "past" or in_preterite:
        return forms.preterite(verb, person, plural)
    return forms.present(verb, person, plural)


def _german_tense(c: Clause, verb: GermanVerb) -> str:
    """Spoken German: the perfect for the English past, the preterite for sein, haben and in narrative clauses (als ...)."""
    match c.tense:
        case "past" if verb.infinitive in _PRETERITE_PAST and not verb.prefix:
            return "preterite"
        case "past" | "perfect" | "just":
            return "perfect"
        case "narrative" | "used-to" | "was-doing":
            return "preterite"
        case "will" | "going":
            return "future"
        case "would":
            return "would"
        case "hypothetical":
            if not verb.would:
                raise Unsayable("a synthetic subjunctive that is not in the table")
            return "hypothetical"
    return "present"


def _infinitive(c: Clause, verb: GermanVerb, *, with_zu: bool) -> list[Token]:
    main = (c.number + VERB,)
    if not with_zu:
        return [Token(forms.infinitive(verb), main)]
    words = forms.zu_infinitive(verb)
    if len(words) == 1:
        return [Token(words[0], (*main, c.number + TO))]
    return [Token(words[0], (c.number + TO,), c.number + VERB), Token(words[1], main)]


def _imperative(c: Clause, verb: GermanVerb, subject: NounPhrase, middle: list[Token]) -> list[Token]:
    main = (c.number + VERB,)
    finite = Token(forms.imperative(verb, subject.is_plural, subject.is_formal), main)
    addressed = [Token("Sie", (subject.number,), c.number + VERB)] if subject.is_formal else []
    prefix = [Token(verb.prefix, main)] if verb.prefix else []
    return [finite, *addressed, *middle, *prefix]
