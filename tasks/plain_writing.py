r"""One way of writing: Unicode mathematics, markdown and LaTeX decorations become plain text or plain LaTeX.

    √2, ½, 10⁻³, 5 − 3, 90°     ->  \sqrt{2}, 1/2, 10^{-3}, 5 - 3, 90^\circ     `as_latex`, for any reader
    **12**, $12$, \text{ cm}    ->  12, 12, cm                                  `as_words`, for reading numbers

Linear in the text, never raises.
"""

import re
import unicodedata

BOX = "\\boxed{"

_BOX_OPENS = re.compile(r"\\(?:boxed|fbox)\s*\{")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎", "0123456789+-=()")
_RAISED = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ]+")
_LOWERED = re.compile(r"[₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎]+")
_ROOT = re.compile(r"([√∛∜])\s*(?:\(([^()]*)\)|(\d+(?:\.\d+)?|[A-Za-zπ]))?")
_ROOT_COMMANDS = {"√": "\\sqrt", "∛": "\\sqrt[3]", "∜": "\\sqrt[4]"}
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad\u2061\u2062\u2063\u2064"))
_SIGNS = str.maketrans(
    {
        **dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\u2014\ufe63\uff0d", "-"),  # minus sign, hyphens and dashes
        **dict.fromkeys(
            "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000", " "
        ),
        "’": "'",
        "‘": "'",
        "“": '"',
        "”": '"',
        "⁄": "/",
        "∕": "/",
        "÷": "/",
        "％": "%",
    }
)
_COMMANDS = {
    "×": "\\times",
    "⋅": "\\cdot",
    "·": "\\cdot",
    "∙": "\\cdot",
    "±": "\\pm",
    "∓": "\\mp",
    "∞": "\\infty",
    "≤": "\\le",
    "≥": "\\ge",
    "⩽": "\\le",
    "⩾": "\\ge",
    "≠": "\\ne",
    "≈": "\\approx",
    "≃": "\\approx",
    "≅": "\\cong",
    "→": "\\to",
    "⟶": "\\to",
    "↦": "\\mapsto",
    "⇒": "\\Rightarrow",
    "⟹": "\\Rightarrow",
    "⇔": "\\iff",
    "↔": "\\iff",
    "∪": "\\cup",
    "∩": "\\cap",
    "∈": "\\in",
    "∅": "\\emptyset",
    "∖": "\\setminus",
    "∠": "\\angle",
    "°": "^\\circ",
    "π": "\\pi",
    "α": "\\alpha",
    "β": "\\beta",
    "γ": "\\gamma",
    "δ": "\\delta",
    "ε": "\\epsilon",
    "θ": "\\theta",
    "λ": "\\lambda",
    "μ": "\\mu",
    "ρ": "\\rho",
    "σ": "\\sigma",
    "τ": "\\tau",
    "φ": "\\phi",
    "ϕ": "\\phi",
    "ω": "\\omega",
    "ℝ": "\\mathbb{R}",
    "ℤ": "\\mathbb{Z}",
    "ℕ": "\\mathbb{N}",
    "ℚ": "\\mathbb{Q}",
    "ℂ": "\\mathbb{C}",
}
_COMMAND_SIGN = re.compile("|".join(map(re.escape, _COMMANDS)))
_FRACTION_SIGN = re.compile(r"(\d)?([¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞])")

_STYLES = r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mathsf|mbox|operatorname|emph|underline)\*?"
_STYLED = re.compile(_STYLES + r"\s*\{([^{}]*)\}")
_BOLD = re.compile(r"`|(?<!\w)\*\*(?!\s)|(?<!\s)\*\*(?![\w({+-])|(?<!\w)__(?!\s)|(?<!\s)__(?!\w)")  # 2**3 is a power
_STARRED = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![\w*])")
_UNDERSCORED = re.compile(r"^\s*_([^_\n{}]+)_(?=[.\s]*$)")
_THIN_SPACE = re.compile(r"\\[,!;:>]")
_WIDE_SPACE = re.compile(
    r"\\q?quad(?![A-Za-z])|\\ |(?<!\\)~|\\(?:displaystyle|left|right|bigl?|bigr?|Bigl?|Bigr?)(?![A-Za-z])"
)
_SHORT_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
_GROUPED = re.compile(r"(?<=\d)\s?(?:\{,\s?\}|\\,|\\!,?|,\\!)\s?(?=\d{3})")
_GLUED_COMMAND = re.compile(r"(\\[A-Za-z]+)(?=\d)")
_MATHS_MODE = re.compile(r"\\[()\[\]]|(?<!\\)\$\$")


def as_latex(text: str) -> str:
    """The same mathematics without Unicode signs: digits and signs in ASCII, the rest as LaTeX commands."""
    text = text.translate(_INVISIBLE).translate(_SIGNS)
    text = _RAISED.sub(lambda match: f"^{{{match[0].translate(_SUPERSCRIPTS)}}}", text)
    text = _LOWERED.sub(lambda match: f"_{{{match[0].translate(_SUBSCRIPTS)}}}", text)
    text = _FRACTION_SIGN.sub(lambda match: f"{match[1] or ''} {_written_out(match[2])}".lstrip(" "), text)
    text = _ROOT.sub(_root, text)
    text = _COMMAND_SIGN.sub(lambda match: f"{_COMMANDS[match[0]]} ", text)
    return "".join(_ascii_digit(char) for char in text)


def without_markdown(text: str) -> str:
    """Without the marks of bold, italic and code, and without a heading's or a quotation's sign."""
    text = _UNDERSCORED.sub(r"\1", _STARRED.sub(r"\1", _BOLD.sub("", text)))
    return re.sub(r"(?m)^\s{0,3}(?:#{1,6}|>|\*)\s+", "", text)


def as_words(text: str) -> str:
    r"""For reading numbers: as_latex, without markdown, LaTeX styles, spacing, maths mode and `\boxed`.

    `\frac12` and `\dfrac{1}{2}` become `\frac{1}{2}`; digits grouped by `{,}` or thin spaces get commas.
    """
    text = without_markdown(as_latex(text))
    text = _GROUPED.sub(",", text).replace("{,}", ",")
    text = _WIDE_SPACE.sub(" ", _THIN_SPACE.sub("", text))
    text = _STYLED.sub(r" \1 ", text)
    text = re.sub(r"\\(?:boxed|fbox)\s*\{([^{}]*)\}", r" \1 ", text)
    text = _SHORT_FRACTION.sub(_full_fraction, text)
    text = _MATHS_MODE.sub(" ", text).replace("\\%", "%").replace("\\$", "$").replace("\\#", "#")
    text = _GLUED_COMMAND.sub(r"\1 ", text)
    return re.sub(r"[ \t]{2,}", " ", text).strip()


def last_boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{}`; None where there is none, or it is empty, or not closed."""
    start = max((match.end() for match in _BOX_OPENS.finditer(text)), default=None)
    if start is None:
        return None
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position].strip() or None
    return None


def _written_out(sign: str) -> str:
    top, bottom = unicodedata.normalize("NFKC", sign).split("⁄")
    return f"\\frac{{{top}}}{{{bottom}}}"


def _root(match: re.Match[str]) -> str:
    radicand = match[2] if match[2] is not None else match[3]
    return _ROOT_COMMANDS[match[1]] + (f"{{{radicand}}}" if radicand is not None else " ")


def _full_fraction(match: re.Match[str]) -> str:
    return f"\\frac{{{match[1] or match[2]}}}{{{match[3] or match[4]}}}"


def _ascii_digit(char: str) -> str:
    if char.isascii():
        return char
    digit = unicodedata.decimal(char, None)
    return char if digit is None else str(int(digit))
