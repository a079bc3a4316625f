"""Repairing and judging texts."""

import sys
import tomllib
from pathlib import Path

import polars as pl
import pytest

from stella_assets.corpus.clean import judge, load_identifier, repair
from stella_assets.corpus.errors import MissingExtraError
from stella_assets.corpus.settings import Clean

REPAIRED = {
    "schÃ¶ne grÃ¼ÃŸe aus KÃ¶ln": "schöne grüße aus Köln",
    "It wasnâ€™t me": "It wasn\u2019t me",
    "<p>One <b>bold</b> word</p><script>alert('x')</script><p>Two &amp; three</p>": "One bold word\n\nTwo & three",
    "<!-- hidden -->shown": "shown",
    "a &lt; b and c &gt; d": "a < b and c > d",
    "List<String> and x < y > z stay": "List<String> and x < y > z stay",
    "e\u0301cole\u200b and\x00 more": "\u00e9cole and more",
    "A real paragraph.\nRead more\nAll rights reserved.\nAnd another one.": "A real paragraph.\nAnd another one.",
    "Read more": "Read more",
    "Log in as a user on a remote host": "Log in as a user on a remote host",
    "tabs\tand   blanks \n\n\n\n and lines": "tabs and blanks\n\nand lines",
}


@pytest.mark.parametrize("text", REPAIRED)
def test_a_text_is_repaired(text: str):
    assert repair(pl.Series([text]), Clean()).to_list() == [REPAIRED[text]]


def verdict(text: str, role: str = "document", **rules: object) -> str | None:
    clean = Clean.model_validate({role: rules})
    texts = repair(pl.Series([text]), clean)
    return judge(texts, pl.Series([role]), clean, lambda some: [len(t.split()) for t in some])["rule"][0]


def test_each_rule_is_named_for_what_it_drops():
    assert verdict("short") == "too short"
    assert verdict("long " * 10, max_chars=20) == "too long"
    assert verdict("--- 12 34 56 78 --- 90 12 ---") == "few letters"
    assert verdict("buy it now here " * 20) == "repetitive"
    assert verdict("only a handful of tokens", min_tokens=9) == "too few tokens"
    assert verdict("only a handful of tokens", max_tokens=3) == "too many tokens"
    assert verdict("A sentence like any other, with nothing wrong.") is None


def test_short_queries_survive():
    assert verdict("tax 2024", role="query") is None
    assert verdict("tax 2024") == "too short"
    assert verdict("tax 2024", role="query", max_chars=500) is None


def test_a_language_is_detected_where_the_text_is_long_enough():
    clean = Clean(languages=("en",))
    texts = pl.Series(
        [
            "Der schnelle braune Fuchs springt über den faulen Hund und läuft dann in den dunklen Wald hinein.",
            "The quick brown fox jumps over the lazy dog, and then it runs away into the dark forest.",
            "Kurzer Satz, kaum erkennbar.",
        ]
    )
    rules = judge(texts, pl.Series(["document"] * 3), clean, None)["rule"].to_list()
    assert rules == ["language de", None, None]


def test_the_remedy_for_a_missing_extra_names_an_extra_of_this_package(monkeypatch):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(MissingExtraError) as caught:
        load_identifier()
    assert f"pip install '{project['name']}[language]'" in caught.value.remedy
    assert "language" in project["optional-dependencies"]
