"""The text form in which papers on Multi30k (and much of WMT before 2018) score: Moses' normalizer and tokenizer.

`lower_norm_tok` gives the form of the files `*.lc.norm.tok.*` that Multi30k publishes. The order is theirs: lower-case,
then normalize the punctuation, then tokenize. Lower-casing last gives other tokens, since the tokenizer decides about a
full stop by the case of what follows it.

    The “McDonald’s” sign.  ->  the &quot; mcdonald &apos;s &quot; sign .

This is our own code for the behaviour of Moses' scripts lowercase, normalize-punctuation and tokenizer without
options, as they were in December 2017, when Multi30k's files were made. Later versions of Moses (and ports of them)
differ in three ways that the published files exclude: they part the last full stop from any word ("a gallery of art."),
turn a single low or left quote into ' instead of ", and know rules for colons in Finnish and Swedish.

A language other than en, de and fr has English's abbreviations (Moses falls back to them as well, but it knows the
abbreviations of some twenty more languages) and keeps its own rule for apostrophes and quotes.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache

from tokenizers import Regex, pre_tokenizers

_Substitutions = tuple[tuple[re.Pattern[str], str], ...]

_NBSP = "\u00a0"
_INITIALS = "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z"
_TITLES = """
    Adj Adm Adv Asst Bart Bldg Brig Bros Capt Cmdr Col Comdr Con Corp Cpl DR Dr Ens Gen Gov Hon Hosp Insp Lt MM MR MRS
    MS Maj Messrs Mlle Mme Mr Mrs Ms Msgr Op Ord Pfc Ph Prof Pvt Rep Reps Res Rev Rt Sen Sens Sfc Sgt Sr St Supt Surg"""
_ROMAN = "I II III IV V VI VII VIII IX X XI XII XIII XIV XV XVI XVII XVIII XIX XX"
_ENGLISH = "Drs Hr v vs rev Nos Nr Jan Feb Mar Apr Jun Jul Aug Sep Oct Nov Dec"
_GERMAN = """
    Mio Mrd MwSt Buchst Std Zt Chr Ltd SA Co Dkr BSE No Nos Art Nr Ca
    bzw v vs usw etc ggf vgl sogen ff sog evtl spp sen jun dgl dergl zzt usf bzgl pp ca"""
_FRENCH = """
    MM SS art ann apr av auj lib boul ca cf chap contr dir éd env al etc ex fasc fém fig fr hab ibid id inf masc ms
    n/réf pl pp sec sect sing sq sqq suiv sup suppl tél vb vol vs"""


@dataclass(frozen=True)
class _Abbreviations:
    """Words whose full stop is theirs: always, or only before a digit ("No. 5"). Written without that full stop."""

    always: frozenset[str]
    before_digit: frozenset[str] = frozenset()


_DEFAULT_ABBREVIATIONS = _Abbreviations(
    frozenset(f"{_INITIALS} {_TITLES} {_ENGLISH}".split()), frozenset(("No", "Art", "pp"))
)
# German writes ordinals with a full stop: "am 3. Mai", "im XX. Jahrhundert".
_ABBREVIATIONS = {
    "de": _Abbreviations(
        frozenset(
            f"{_INITIALS} {_INITIALS.lower()} {_ROMAN} {_ROMAN.lower()} {_TITLES} {_GERMAN}".split()
            + [str(number) for number in range(1, 100)]
        )
    ),
    # No a: "il y a." ends a sentence, as no French sentence does in another single letter.
    "fr": _Abbreviations(frozenset(f"{_INITIALS} {_INITIALS[1:].lower()} {_FRENCH}".split())),
}

_QUOTES_AS_WRITTEN = ("cs", "cz")
_DECIMAL_COMMA = ("de", "es", "cz", "cs", "fr")
_ELISION = ("fr", "it", "ga")

# Moses works on bytes here, so a digit is 0-9 and a letter a-z whatever the script.
_NORMALIZATION = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        ("\r", ""),
        # A bracket hugs what it holds and keeps its distance from what it does not.
        (r"\(", " ("),
        (r"\)", ") "),
        (" +", " "),
        (r"\) ([.!:?;,])", r")\1"),
        (r"\( ", "("),
        (r" \)", ")"),
        (r"([0-9]) %", r"\1%"),
        (" ([:;])", r"\1"),
        # One apostrophe, one quotation mark, one hyphen.
        ("`", "'"),
        ("''", ' " '),
        ("[„“”]", '"'),
        ("–", "-"),
        ("—", " - "),
        (" +", " "),
        ("´", "'"),
        ("([A-Za-z])‘([A-Za-z])", r"\1'\2"),
        ("([A-Za-z])’([A-Za-z])", r"\1'\2"),
        ("[‘‚’]", '"'),
        ("''", '"'),
        ("…", "..."),
        # French puts a no-break space inside quotation marks, before double punctuation and before a unit.
        (f"{_NBSP}«{_NBSP}", ' "'),
        (f"«{_NBSP}?", '"'),
        (f"{_NBSP}»{_NBSP}", '" '),
        (f"{_NBSP}?»", '"'),
        (f"{_NBSP}%", "%"),
        (f"nº{_NBSP}", "nº "),
        (f"{_NBSP}([:?!;])", r"\1"),
        (f"{_NBSP}(ºC|cm)", r" \1"),
        (f",{_NBSP}", ", "),
        (" +", " "),
    )
)
_ESCAPES = str.maketrans(
    {
        "&": "&amp;",
        "|": "&#124;",
        "<": "&lt;",
        ">": "&gt;",
        "'": "&apos;",
        '"': "&quot;",
        "[": "&#91;",
        "]": "&#93;",
    }
)


def lower_norm_tok(text: str, *, language: str) -> str:
    """Lower-case, normalize and tokenize one line: tokens with Moses' escapes, parted by one space.

    language: a code such as "en", "de-AT" or "pt_BR"; the region is ignored. Equals Multi30k's `*.lc.norm.tok.*` files
    on every line of their train, val and test_2016_flickr splits in English, German and French.
    """
    # A final sigma is a matter of context that Moses' lower case (Perl's lc) does not look at.
    lowered = text.replace("Σ", "σ").lower()
    return " ".join(moses_tokenize(normalize_punctuation(lowered, language=language), language=language))


def normalize_punctuation(text: str, *, language: str) -> str:
    """Quotes, dashes, brackets and the spaces around them in one spelling, as Moses' normalize-punctuation does.

    text is one line. A quotation mark and the comma or full stops beside it change places as the language has it.
    """
    language = primary_language(language)
    text = _substitute(text, _NORMALIZATION)
    if language == "en":
        text = re.sub(r'"([,.]+)', r'\1"', text)
    elif language not in _QUOTES_AS_WRITTEN:
        text = text.replace(',"', '",')
        # The line end counts as a character here: a quotation mark ending the line does change places.
        text = re.sub(r'(\.+)"([ \t-\r]*[^<])', r'"\1\2', f"{text}\n").removesuffix("\n")
    point = "," if language in _DECIMAL_COMMA else "."
    return re.sub(f"([0-9]){_NBSP}([0-9])", rf"\1{point}\2", text)


def moses_tokenize(text: str, *, language: str, escape: bool = True) -> list[str]:
    """The tokens of one line, as Moses' tokenizer gives them. escape: write &apos; for ' and so on, as Moses does."""
    language = primary_language(language)
    rules = _rules()
    text = re.sub("[\x00-\x08\x0e-\x1f]", "", text)
    text = " ".join(text.split())
    text = rules.symbol.sub(r" \1 ", text)
    # "..." is one token.
    text = re.sub(r"(\.{2,})", r" \1 ", text)
    # Most lines have no comma or no apostrophe, and these patterns are slow to say so.
    if "," in text:
        text = _substitute(text, rules.commas)
    if "'" in text:
        text = _substitute(text, rules.apostrophes(language))
    text = _part_full_stops(text, _ABBREVIATIONS.get(language, _DEFAULT_ABBREVIATIONS))
    text = re.sub(r"\.'$", " . '", text)
    return (text.translate(_ESCAPES) if escape else text).split()


def primary_language(language: str) -> str:
    """The language of a code without its region: de of de-AT, pt of pt_BR."""
    return re.split("[-_]", language.strip().lower(), maxsplit=1)[0]


def _part_full_stops(text: str, abbreviations: _Abbreviations) -> str:
    """The full stop at the end of each word becomes a token, unless it belongs to the word or the sentence goes on."""
    words = text.rstrip().split(" ")
    parted = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        stem = word.removesuffix(".")
        if stem in ("", word) or stem.strip(".") == "" or _keeps_full_stop(stem, following, abbreviations):
            parted.append(word)
        else:
            parted.append(f"{stem} .")
    return " ".join(" ".join(parted).split())


def _keeps_full_stop(stem: str, following: str, abbreviations: _Abbreviations) -> bool:
    if "." in stem and _rules().letter.search(stem):  # "z.B.", "www.example.com."
        return True
    if stem in abbreviations.always or following[:1].islower():
        return True
    return stem in abbreviations.before_digit and "0" <= following[:1] <= "9"


@dataclass(frozen=True)
class _Rules:
    """The patterns that name Unicode properties. Groups, not look-arounds, take the neighbours: a character that one
    replacement has used is not looked at by the next one, which decides what becomes of ,, and '' and of 1'2'3."""

    letter: re.Pattern[str]
    symbol: re.Pattern[str]
    commas: _Substitutions
    english: _Substitutions
    elision: _Substitutions

    def apostrophes(self, language: str) -> _Substitutions:
        """English parts before ('s), French and its likes after (d'), the others on both sides."""
        if language == "en":
            return self.english
        return self.elision if language in _ELISION else ((re.compile("'"), " ' "),)


@cache
def _rules() -> _Rules:
    # Unicode assigns letters and numbers to planes 0 to 3 only.
    characters = "".join(chr(code) for code in range(0x40000) if not 0xD800 <= code < 0xE000)
    letter, number = _alphabetic(characters), _numeric(characters)
    return _Rules(
        letter=re.compile(f"[{letter}]"),
        symbol=re.compile(rf"([^{letter}\d .'`,\-])"),
        # A comma stays only inside a number.
        commas=(
            (re.compile(f"([^{number}]),"), r"\1 , "),
            (re.compile(f",([^{number}])"), r" , \1"),
            (re.compile(f"([{number}]),$"), r"\1 ,"),
        ),
        english=(
            (re.compile(f"([^{letter}])'([^{letter}])"), r"\1 ' \2"),
            (re.compile(f"([^{letter}{number}])'([{letter}])"), r"\1 ' \2"),
            (re.compile(f"([{letter}])'([^{letter}])"), r"\1 ' \2"),
            (re.compile(f"([{letter}])'([{letter}])"), r"\1 '\2"),
            (re.compile(f"([{number}])'(s)"), r"\1 '\2"),
        ),
        elision=(
            (re.compile(f"([^{letter}])'([^{letter}])"), r"\1 ' \2"),
            (re.compile(f"([^{letter}])'([{letter}])"), r"\1 ' \2"),
            (re.compile(f"([{letter}])'([^{letter}])"), r"\1 ' \2"),
            (re.compile(f"([{letter}])'([{letter}])"), r"\1' \2"),
        ),
    )


def _alphabetic(characters: str) -> str:
    """Unicode's property Alphabetic as ranges for a character class. It holds the vowel signs of Indic scripts, which
    are no letters to Python's str.isalpha; the regular expressions of `tokenizers` know the property."""
    runs = pre_tokenizers.Split(Regex(r"\p{Alphabetic}+"), "removed", invert=True).pre_tokenize_str(characters)
    return "".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else run for run, _ in runs)


def _numeric(characters: str) -> str:
    """Unicode's categories N* as a character class: superscripts and fractions too."""
    return "".join(character for character in characters if unicodedata.category(character).startswith("N"))


def _substitute(text: str, substitutions: _Substitutions) -> str:
    for pattern, replacement in substitutions:
        text = pattern.sub(replacement, text)
    return text
