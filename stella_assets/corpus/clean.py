"""Repairing texts, and judging which to keep: each role has rules, and the first that a text breaks is the reason."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stella_assets.corpus.errors import LanguageError, MissingExtraError
from stella_assets.corpus.settings import Clean, Rules
from stella_assets.corpus.text import normalise
from stella_assets.corpus.words import hashed_words, match_form
from stella_assets.storage.polars import pl

# Names of HTML elements only: `List<String>` and `a < b` are not markup.
TAGS = (
    "a|abbr|article|aside|b|blockquote|body|br|button|caption|center|cite|code|col|dd|del|div|dl|dt|em|figcaption|figure|"
    "font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|ins|label|li|link|main|mark|meta|nav|ol|option|p|pre|"
    "q|s|section|select|small|span|strike|strong|sub|sup|table|tbody|td|tfoot|th|thead|title|tr|tt|u|ul|video"
)
ELEMENTS_WITHOUT_TEXT = r"(?is)<(script|style)\b[^>]*>.*?</(script|style)\s*>|<!--.*?-->|<!doctype[^>]*>"
# Elements that a browser shows on a line of their own. Other tags leave no gap, or `<b>w</b>ord` would be two words.
BLOCK_TAGS = r"(?i)</?(p|div|br|h[1-6]|li|ul|ol|tr|table|blockquote|section|article|header|footer|hr|title)\b[^<>]*>"
ANY_TAG = rf"(?i)</?({TAGS})(\s[^<>]*)?/?>"
# Only with a semicolon: the address `?a=1&copy=2` has no entity.
ENTITY = r"&(#\d{1,7}|#x[0-9a-fA-F]{1,6}|[a-zA-Z]{2,31});"
# A wrongly decoded text always has characters outside ASCII; ftfy is slow and sees only such texts.
REPAIRABLE = r"[^\x00-\x7f]"
REPETITION_WORDS = 3
MIN_REPETITION_WORDS = 20
"""Shorter texts repeat little, or on purpose."""
MIN_CONFIDENCE = 0.9
"""Of the language of a text that is removed: names, formulas and lists look a little like many languages."""

Tokens = Callable[[list[str]], list[int]]


def repair(texts: pl.Series, settings: Clean) -> pl.Series:
    """Texts as their authors meant them.

    Broken encodings are repaired; tags, boilerplate and control characters are removed; the result is in Unicode NFC.

    Args:
        texts: As a source gives them.
        settings: Whether HTML is removed, and the patterns of boilerplate.

    Returns:
        A series named `text`, in the order of `texts`. A text can become empty.

    Example:
        >>> repair(pl.Series(["<p>schÃ¶n &amp; gut</p>"]), Clean()).to_list()
        ['schön & gut']
    """
    text = pl.Series("text", texts)
    text = _where(text, text.str.contains(REPAIRABLE), _fix_encoding)
    if settings.html:
        text = _where(text, text.str.contains(ANY_TAG) | text.str.contains("<!--", literal=True), _without_tags)
        # After the tags: `&lt;b&gt;` is a text about markup, and not markup to be removed.
        text = _where(text, text.str.contains(ENTITY), lambda some: some.map_elements(html.unescape, pl.String))
    text = normalise(text)
    if settings.boilerplate:
        lines = rf"(?im)^({'|'.join(settings.boilerplate)})[ .]*$\n?"
        # A text of one line is kept: the line is the text itself and not a frame around it.
        found = text.str.contains("\n", literal=True) & text.str.contains(lines)
        # Normalised again, since removed lines leave empty lines behind.
        text = _where(text, found, lambda some: normalise(some.str.replace_all(lines, "")))
    return text


def judge(texts: pl.Series, roles: pl.Series, settings: Clean, tokens: Tokens | None) -> pl.DataFrame:
    """`rule` and `value`: the first rule that a text breaks and what was measured, or null.

    Args:
        texts: Repaired.
        roles: `document` or `query`; each has rules of its own.
        settings: The rules.
        tokens: Counts tokens of the student's tokenizer; None if no rule limits them.

    Returns:
        One row per text, in the order of `texts`. The unit of `value` is that of the rule: characters, tokens, a share
        or a probability.

    Raises:
        MissingExtraError: The recipe filters languages and the package that detects them is not installed.
    """
    frame = pl.DataFrame({"text": texts, "role": roles}).with_columns(
        chars=texts.str.len_chars().cast(pl.Float64), letters=_letters(texts), repetition=_repetition(texts)
    )
    if tokens is not None:
        frame = frame.with_columns(tokens=pl.Series(tokens(texts.to_list()), dtype=pl.Float64))
    # The expression of the other role is null, so `coalesce` finds the one of the text's own role.
    broken = pl.coalesce(
        pl.when(pl.col("role") == role).then(pl.coalesce(_rules(settings.rules(role), tokens is not None)))
        for role in ("document", "query")
    )
    judged = frame.select(broken=broken).unnest("broken")
    if settings.languages:
        judged = _judge_language(texts, judged, settings)
    return judged


def _rules(rules: Rules, count_tokens: bool) -> list[pl.Expr]:
    """The first that is not null is the verdict."""
    limits: list[tuple[str, str, float | None, Any]] = [
        ("too short", "chars", rules.min_chars, pl.Expr.__lt__),
        ("too long", "chars", rules.max_chars, pl.Expr.__gt__),
        ("few letters", "letters", rules.min_letters, pl.Expr.__lt__),
        ("repetitive", "repetition", rules.max_repetition, pl.Expr.__gt__),
    ]
    if count_tokens:
        limits += [
            ("too few tokens", "tokens", rules.min_tokens, pl.Expr.__lt__),
            ("too many tokens", "tokens", rules.max_tokens, pl.Expr.__gt__),
        ]
    return [
        pl.when(breaks(pl.col(measure), limit)).then(pl.struct(rule=pl.lit(rule), value=pl.col(measure)))
        for rule, measure, limit, breaks in limits
        if limit is not None
    ]


def _letters(texts: pl.Series) -> pl.Series:
    """Share of letters, and of marks on letters, among characters that are not blanks."""
    letters = texts.str.count_matches(r"[\p{L}\p{M}]").cast(pl.Float64)
    return letters / texts.str.count_matches(r"\S").clip(1)


def _repetition(texts: pl.Series) -> pl.Series:
    """Share of three-word sequences that occurred in the text before; 0 for short texts."""
    words = hashed_words(match_form(texts))
    long = np.flatnonzero(words.counts >= MIN_REPETITION_WORDS)
    windows = words.take(long).windows(REPETITION_WORDS)
    share = np.zeros(len(texts))
    # Every row in `long` has at least one window, since MIN_REPETITION_WORDS is above REPETITION_WORDS.
    share[long] = 1 - windows.distinct().counts / windows.counts
    return pl.Series(share)


def _judge_language(texts: pl.Series, judged: pl.DataFrame, settings: Clean) -> pl.DataFrame:
    identifier = load_identifier()
    # Last and only for texts that broke no other rule: the classifier takes one text at a time.
    asked = judged["rule"].is_null() & (texts.str.len_chars() >= settings.min_language_chars)
    rules, values = judged["rule"].to_list(), judged["value"].to_list()
    for i in np.flatnonzero(asked.to_numpy()):
        code, probability = identifier.classify(texts[int(i)])
        if code not in settings.languages and probability >= MIN_CONFIDENCE:
            rules[i], values[i] = f"language {code}", float(probability)
    return pl.DataFrame({"rule": rules, "value": values}, schema=judged.schema)


def require_languages(languages: Sequence[str]) -> None:
    """Make sure that the detector of languages can find those that are to be kept.

    Raises:
        MissingExtraError: The package is not installed.
        LanguageError: It does not know one of them, so every text would be dropped.
    """
    known = sorted(map(str, load_identifier().nb_classes)) if languages else []
    if unknown := [each for each in languages if each not in known]:
        raise LanguageError(
            f"corpus.clean.languages: {unknown[0]!r} is not a language that is detected; known are {', '.join(known)}.",
            "Correct it; codes are those of ISO 639-1, e.g. `en`.",
        )


def load_identifier() -> Any:
    """The language detector, with its model.

    Raises:
        MissingExtraError: The package is not installed.
    """
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise MissingExtraError(
            "corpus.clean.languages needs the package py3langid, which is not installed.",
            "Install it with `pip install 'stella-distil[language]'`, or remove `languages`.",
        ) from None
    # Normalised to probabilities: MIN_CONFIDENCE means nothing for raw log-likelihoods.
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _where(texts: pl.Series, chosen: pl.Series, change: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """Texts with the chosen ones changed."""
    if not chosen.any():
        return texts
    at = chosen.arg_true()
    # `scatter` writes in place; the clone keeps the caller's series as it is.
    return texts.clone().scatter(at, change(texts.gather(at)))


def _without_tags(texts: pl.Series) -> pl.Series:
    return (
        texts.str.replace_all(ELEMENTS_WITHOUT_TEXT, " ").str.replace_all(BLOCK_TAGS, "\n").str.replace_all(ANY_TAG, "")
    )


def _fix_encoding(texts: pl.Series) -> pl.Series:
    from ftfy import TextFixerConfig, fix_text

    # Entities have a setting of their own (`html`); quotes and character widths are the author's choice.
    config = TextFixerConfig(unescape_html=False, uncurl_quotes=False, fix_character_width=False, explain=False)
    return pl.Series(texts.name, [fix_text(text, config) for text in texts], dtype=pl.String)
