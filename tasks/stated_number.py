r"""The one number that an answer states, in prose, markdown, LaTeX, with units; None where it states none or several.

    text -> plain writing -> the sentence that answers -> a numeral and what it is joined to -> the stated number

"7 + 12 = 19" states 19, since the sides agree; "7 + 12" states nothing, "12 or 13" states nothing, "43 \to 42"
contradicts itself. Linear in the text, never raises.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

from tasks.arithmetic_value import arithmetic_value
from tasks.numerals import NUMERAL, Number
from tasks.numerals_in_text import Numeral, find_numerals, is_operand
from tasks.plain_writing import as_words

MAX_STATEMENT_CHARS = 4_000
"""Of the end of a text, where its answer is looked for."""
MAX_QUANTITY_CHARS = 400
MAX_STATEMENT_NUMERALS = 24

_ANSWER_IS = re.compile(
    r"\banswer\b(?:\s+(?:to|of|for)\s+(?:the|this|that)\s+\w+)?\s*"
    r"(?:(?:is|are|was|equals|would be|will be|should be|must be|comes to)\b\s*:?|[:=])\s*",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?;](?=\s|$)|\n")
_AFTERTHOUGHT = re.compile(
    r"(?:(?:^|(?<=[.!?;\n(])\s*)(?:to |let's |let us |let me |we can |now |as a )?(?:double-)?"
    r"(?:check|checking|verify|verifying|verification|confirm|proof)\b|\n\s*(?:explanation|reason|reasoning)\s*:|[,(\s](?:because|since)\b)",
    re.IGNORECASE,
)
_CONCLUSION = re.compile(r"\b(?:so|thus|hence|therefore|answer|total|altogether|left)\b", re.IGNORECASE)

_OPERATIONS = {
    "plus": "+",
    "minus": "-",
    "times": "*",
    "x": "*",
    "\\times": "*",
    "\\cdot": "*",
    "divided by": "/",
    "over": "/",
    "\\div": "/",
    "^": "**",
}
_OPERATOR = r"\+|-|\*{1,2}|/|\^|\\times|\\cdot|\\div|x|plus|minus|times|divided by|over"
_SEPARATOR = r"=+>?|\\approx|\\to|\\mapsto|\\(?:Right|right|long|Long)+arrow|-+>|~"
_WORDS = r"(?:[A-Za-z]{3,}\s+){0,3}"
_GAP = re.compile(
    rf"\s*(?:%|\$|€)?\s*{_WORDS}\)*\s*(?:(?P<operator>{_OPERATOR})|(?P<separator>{_SEPARATOR}))\s*[($]*\s*"
    rf"|(?P<choice>[ \t]*[,;.]?[ \t]*\(?{_WORDS}(?:[Oo]r|and(?:/or)?|\\text\{{or\}}|\\lor|\\vee)[ \t]+)"
    r"|(?P<list>[ \t]*[,;|&][ \t]*|[ \t]*to[ \t]+|[ \t]*vs\.?[ \t]+|:|[ \t]+)"
)
_NEGATED = re.compile(r"\b(?:minus|negative)\s+$", re.IGNORECASE)
_VERB = re.compile(r"[=]|\b(?:is|are|was|were|makes?|equals?|gives?|leaves?|remains?|so|then)\b", re.IGNORECASE)
_ASIDE = re.compile(
    r"(?:\(|\b(?:in|for|per|with|on|at|after|within|among|of|by|across|during|from)\s+(?:the |each |all |every |about )?)$"
)
_PAIR = re.compile(r"[(\[{]\s*[-+]?\d+,[-+]?\d+\s*[)\]}]")
"""A point, an interval or a set, whose comma is no decimal one."""
_CALL = re.compile(r"(?<![\w)])[A-Za-z]+\([^()=]*$")
_ARROW = re.compile(r"^[=-]+>\s*")
_WRAPPERS = (("(", ")"), ("[", "]"), ("{", "}"), ("$", "$"))


@dataclass(frozen=True, slots=True)
class Stated:
    """text: the numeral as it stands in plain writing, with its percent sign or scale. start, end: its place there,
    unit included."""

    text: str
    number: Number
    start: int
    end: int


def stated_number(text: str, *, truncated: bool = False) -> Stated | None:
    """truncated: the text was cut off at the length limit, so that a number which touches its end may be half one."""
    words = _unwrapped(as_words(_end_of(text)))
    stated = _of_statement(words) if (answer := _last_answer(words)) is None else answer[0]
    if stated is not None and truncated and words[stated.end :].strip() in ("", ".", ",", "/", "-", ")", "$"):
        return None
    return stated


def first_number(line: str, *, truncated: bool = False) -> Stated | None:
    """The first number of a line that is marked as the answer: "42 apples (2 boxes)"."""
    words = _unwrapped(as_words(line[:MAX_STATEMENT_CHARS]))
    stated = _of_numerals(words, "first")
    return None if stated is not None and truncated and stated.end >= len(words.rstrip("./,-")) else stated


def quantity(text: str) -> Number | None:
    r"""The number that the whole text is, up to a label, a percent sign, a scale and a unit: "x = 5", "90^\circ"."""
    if len(text) > MAX_QUANTITY_CHARS:
        return None
    words = _unwrapped(as_words(text)).rstrip(".").strip()
    numerals = find_numerals(words)
    if len(numerals) != 1 or _last_answer(words) is not None:
        return None
    stated = _of_run(words, numerals, 0)
    if stated is None:
        return None
    before, after = words[: stated.start].strip(), words[stated.end :].strip()
    label = re.fullmatch(r"(?:[A-Za-z\\|][\w\\{}()|',^: ]*=)?", before)
    return stated.number if label is not None and re.fullmatch(r"[A-Za-z'.\- ]*", after) else None


def same_number(a: Number, b: Number) -> bool:
    """Exactly the same value. A percent sign on one side alone is a unit ("50%" for 50), or a factor where the other
    side is no whole number ("50%" for 0.5, but not "4200%" for 42)."""
    if a.percent == b.percent or a.value == b.value:
        return a.value == b.value
    plain, share = (b, a) if a.percent else (a, b)
    return plain.value.denominator > 1 and plain.value == share.value / 100


def _end_of(text: str) -> str:
    """The last characters, from the beginning of a word on."""
    return text if len(text) <= MAX_STATEMENT_CHARS else text[-MAX_STATEMENT_CHARS:].partition(" ")[2]


def _unwrapped(words: str) -> str:
    """Without brackets, dollar signs and quotation marks around the whole."""
    words = _ARROW.sub("", words.strip().strip("\"'").strip())
    for opening, closing in _WRAPPERS * 2:
        inner = words[1:-1]
        if _PAIR.fullmatch(words):
            return words
        if words[:1] == opening and words[-1:] == closing and not (opening in inner or closing in inner):
            words = inner.strip()
    return words


def _last_answer(words: str) -> tuple[Stated | None] | None:
    """What the last "the answer is ..." with a number states; None where there is no such sentence."""
    for match in reversed(list(_ANSWER_IS.finditer(words))):
        end = _SENTENCE_END.search(words, match.end())
        segment = words[match.end() : end.start() if end else len(words)].rstrip("! ")
        if NUMERAL.search(segment):
            stated = _of_numerals(segment, "first") or _of_numerals(segment, "last")
            if stated is None:
                return (None,)
            return (replace(stated, start=stated.start + match.end(), end=stated.end + match.end()),)
    return None


def _of_statement(words: str) -> Stated | None:
    """Of text that does not say which number is its answer: the last one, checks and reasons after it left out."""
    for match in _AFTERTHOUGHT.finditer(words):
        if NUMERAL.search(words[: match.start()]) and not _CONCLUSION.search(words, match.end()):
            words = words[: match.start()].rstrip(" ,(")
            break
    return _of_numerals(words, "first" if _opens_with_its_number(words) else "last")


def _opens_with_its_number(words: str) -> bool:
    """Whether it is a number with its noun, and no other number but in an aside: "42 apples in 2 boxes"."""
    numerals = find_numerals(words)
    if len(numerals) < 2 or "\n" in words or numerals[0].start > 0 or _VERB.search(words):
        return False
    named = re.match(r"\s[A-Za-z]{3,}", words[numerals[0].end :]) is not None
    return named and all(_ASIDE.search(words[: numeral.start]) for numeral in numerals[1:])


def _of_numerals(words: str, which: Literal["first", "last"]) -> Stated | None:
    numerals = find_numerals(words)
    return _of_run(words, numerals, 0 if which == "first" else len(numerals) - 1) if numerals else None


def _of_run(words: str, numerals: list[Numeral], chosen: int) -> Stated | None:
    """The number that the chosen numeral stands for together with what it is joined to."""
    links = [_link(words, numerals, i) for i in range(len(numerals) - 1)]
    sides = _sides(links, chosen)
    first, last = sides[0][0], sides[-1][1]
    if last - first >= MAX_STATEMENT_NUMERALS or not numerals[last].closed:
        return None
    if is_operand(words, numerals[first]):
        return None
    own = next(i for i, (a, b) in enumerate(sides) if a <= chosen <= b)
    listed_left = first > 0 and links[first - 1] in ("choice", "list")
    listed_right = last < len(links) and links[last] in ("choice", "list")
    if (listed_left and own == 0) or (listed_right and own == len(sides) - 1):
        return None
    known = sides[1:] if listed_left else sides
    return _agreed(words, numerals, known, links)


def _sides(links: list[str], chosen: int) -> list[tuple[int, int]]:
    """The sides of the chain around the chosen numeral, each from its first to its last numeral."""
    first = last = chosen
    while first > 0 and links[first - 1] in ("operator", "separator", "rounded"):
        first -= 1
    while last < len(links) and links[last] in ("operator", "separator", "rounded"):
        last += 1
    ends = [i for i in range(first, last) if links[i] != "operator"] + [last]
    return [(begin, end) for begin, end in zip([first, *(i + 1 for i in ends[:-1])], ends, strict=True)]


def _agreed(words: str, numerals: list[Numeral], sides: list[tuple[int, int]], links: list[str]) -> Stated | None:
    """The last side that is a single number, where every other side has the same value."""
    single = [a for a, b in sides if a == b and numerals[a].number is not None]
    if not single:
        return None
    numeral = numerals[single[-1]]
    number = numeral.number
    assert number is not None
    negated = _NEGATED.search(words[: numeral.start]) is not None and len(sides) == 1
    number = replace(number, value=-number.value) if negated else number
    for a, b in sides:
        rounded = "rounded" in links[max(0, a - 1) : b + 1]
        value = _side_value(words, numerals, a, b)
        if value is None or (not negated and not _agree(value, number, rounded)):
            return None
    text = re.sub(r"^([-+])\s+", r"\1", words[numeral.start : numeral.end].strip())
    return Stated(f"-{text}" if negated else text, number, numeral.start, numeral.unit_end)


def _agree(value: Number, number: Number, rounded: bool) -> bool:
    return same_number(value, number) or (rounded and abs(value.value - number.value) <= number.unit / 2)


def _side_value(words: str, numerals: list[Numeral], first: int, last: int) -> Number | None:
    if first == last:
        return numerals[first].number
    opening = re.search(r"[(\s]*$", words[: numerals[first].start])
    expression = opening[0].strip() if opening else ""
    for i in range(first, last + 1):
        number = numerals[i].number
        if number is None or number.percent:
            return None
        expression += f"({number.value.numerator}/{number.value.denominator})"
        if i < last:
            expression += _operation(words[numerals[i].unit_end : numerals[i + 1].start])
    closing = re.match(r"[)\s]*", words[numerals[last].unit_end :])
    value = arithmetic_value(expression + (closing[0].strip() if closing else ""))
    return None if value is None else Number(value)


def _operation(gap: str) -> str:
    match = _GAP.fullmatch(gap)
    assert match is not None
    written = match["operator"]
    before, _, after = gap.partition(written)
    return ")" * before.count(")") + _OPERATIONS.get(written, written) + "(" * after.count("(")


def _link(words: str, numerals: list[Numeral], i: int) -> str:
    """How numeral i is joined to the next: operator, separator (the same value), rounded, choice, list, or not: ""."""
    this, following = numerals[i], numerals[i + 1]
    between = words[this.unit_end : following.start]
    alone = this.unit_end == this.end and words[following.end :].lstrip().startswith(")")
    if between.strip() == "(" and alone:  # "43 (42)"
        return "list"
    gap = _GAP.fullmatch(words, this.unit_end, following.start)
    if gap is None or (gap["separator"] == "=" and between.startswith(")") and _CALL.search(words[: this.start])):
        return ""
    if gap["separator"]:
        return "rounded" if gap["separator"] in ("\\approx", "~") else "separator"
    if gap["operator"] or gap["choice"]:
        return "operator" if gap["operator"] else "choice"
    if gap["list"].strip() in (",", ";"):  # "out of 20, 19 passed" is no list, "19, 20" is one
        after = _SENTENCE_END.split(words[following.end :], maxsplit=1)[0]
        return "" if following.unit_end > following.end or re.search(r"[A-Za-z]", after) else "list"
    return "list"
