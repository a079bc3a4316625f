"""Data in Markdown, HTML, YAML and figures is read as it is, and adds nothing to the page."""

import html
from typing import Any

import numpy as np
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from stella_assets.core.figures import figure
from stella_assets.core.markup import CONTROL, markdown_code, markdown_table, markdown_text
from stella_assets.core.present import Markdown, Picture, Rows, html_table
from stella_assets.evaluation.render.html import render_html
from stella_assets.evaluation.render.markdown import render_markdown
from stella_assets.evaluation.render.page import Page
from stella_assets.evaluation.summary import Difference, Figure, ModelSummary, Summary, TaskSummary
from stella_assets.pipelines.metadata import to_metadata
from stella_assets.study.study import _page

HOSTILE = {
    "a cell": "a | b |",
    "a script": "<script>alert(1)</script>",
    "an attribute": '" onerror="alert(1)',
    "an entity": "&lt;b&gt; &amp;",
    "a link": "[here](javascript:alert(1))",
    "a picture": "![x](https://example.org/x.png)",
    "a reference": "[here]: https://example.org",
    "an address in brackets": "<https://example.org>",
    "emphasis": "**loud** *said* __twice__ _once_ ~~gone~~",
    "code": "`rm` ``x`` ```",
    "a formula": "$\\frac$ and $5",
    "backslashes": "C:\\*x\\_y\\",
    "a heading": "# Release approved",
    "an item": "- item",
    "a numbered item": "1. item",
    "a rule": "---",
    "a heading by its underline": "===",
    "an end of the front matter": "MIT\n---\n# other card",
    "keys of YAML": "MIT\nlicense: other",
    "another line": "one\n\n# two\n\n    three\n- four",
    "Jinja": "{{ 7 * 7 }}{% raw %}",
    "YAML": "{a: [1, *x]} !!python/object:os.system",
    "a name with underscores": "all_minilm_l6_v2",
    "a number": "1e5",
}


def words(text: str) -> str:
    """Text as a page shows it, where spaces and ends of lines are one."""
    return " ".join(text.split())


def tokens(markdown: str) -> list[Token]:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)


def shown(markdown: str) -> tuple[str, set[str]]:
    """What a reader of the Markdown sees, and the kinds of markup in it."""
    inline = [child for token in tokens(markdown) for child in token.children or ()]
    text = " ".join(token.content if token.type in {"text", "text_special"} else "\n" for token in inline)
    kinds = {token.type for token in (*tokens(markdown), *inline)}
    return text, kinds - {"inline", "text", "text_special", "softbreak", "paragraph_open", "paragraph_close"}


def inline_text(markdown: str) -> str:
    inline = [child for token in tokens(markdown) for child in (token.children or ())]
    return words("".join(" " if token.type == "softbreak" else token.content for token in inline))


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_text_is_read_as_it_is_and_is_no_markup(kind: str):
    text = HOSTILE[kind]
    for around in ("{}", "before\n{}", "before {} after"):
        page = around.format(markdown_text(text))
        assert shown(page)[1] == set()
        assert inline_text(page.replace("\n\n", "\n")) == words(around.format(text))


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_table_keeps_its_form_whatever_its_cells_hold(kind: str):
    text = HOSTILE[kind]
    table = tokens(markdown_table([text, "n"], [[text, 1], [None, text]]))
    cells = [token for token in table if token.type == "inline"]
    assert [words("".join(child.content for child in cell.children or ())) for cell in cells] == [
        words(text), "n", words(text), "1", "", words(text)
    ]  # fmt: skip
    assert {child.type for cell in cells for child in cell.children or ()} <= {"text", "text_special"}


@pytest.mark.parametrize("kind", HOSTILE)
def test_code_is_code_to_its_end(kind: str):
    text = HOSTILE[kind]
    [inline] = [token for token in tokens(f"before {markdown_code(text)} after") if token.type == "inline"]
    found = [child.content for child in inline.children or () if child.type == "code_inline"]
    assert found == [" ".join(text.splitlines())]


@pytest.mark.parametrize(
    "text", ["\x1b[31mred", "\x9b31m", "\x1b]8;;https://example.org\x07", "a\rb", "a\u202eb", "a\u200b", "a\ud800"]
)
def test_a_card_shown_on_a_terminal_is_not_obeyed(text: str):
    expected = text.encode("unicode_escape").decode()
    assert inline_text(markdown_text(text)) == expected
    for page in (markdown_text(text), markdown_code(text), markdown_table(["a"], [[text]])):
        assert not CONTROL.search(page)


def test_lines_that_end_as_on_windows_are_lines():
    assert markdown_text("one\r\ntwo") == "one\ntwo"


def test_code_keeps_spaces_at_its_ends():
    [inline] = tokens(f"{markdown_code(' a ')}")[1:-1]
    assert inline.children is not None
    assert inline.children[0].content == " a "


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_table_of_a_page_holds_text(kind: str):
    table = html_table([HOSTILE[kind]], [[HOSTILE[kind]]])
    assert table.count("<") == 14
    assert table.count(html.escape(HOSTILE[kind])) == 2


def summary_of(text: str) -> Summary:
    """A summary whose free texts are all the same."""
    models = tuple(
        ModelSummary(
            name=name,
            dimension=8,
            scores={text: 0.5},
            types={text: 0.5},
            mean=0.5,
            interval=(0.4, 0.6),
            mean_of_types=0.5,
        )
        for name in (text, "stage_1")
    )
    return Summary(
        recipe="tiny",
        seed=0,
        task_types={text: text},
        models=models,
        retention={text: {text: Figure(value=0.5, interval=None), "mean": Figure(value=0.5, interval=None)}},
        gain=Difference(value=1, interval=(0, 2)),
        paraphrased_tasks=(text,),
        tasks=(TaskSummary(task=text, type=text, metric=text, data="hub", revision=text, benchmarks=""),),
    )


def page_of(text: str) -> Page:
    return Page(text, summary_of(text), text, [], [[text, "0", "1", "now"]])


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_report_shows_data_and_obeys_none(kind: str):
    plots = dict.fromkeys(["score_by_model", "score_by_dimension", "retention", "loss_curves", "corpus_funnel"], b"png")
    plots |= dict.fromkeys(["cosine_agreement", "cost_by_step", "lineage"], b"png")
    harmless, hostile = (render_html(page_of(text), plots) for text in ("plain", HOSTILE[kind]))
    assert [hostile.count(mark) for mark in ("<", ">", '"')] == [harmless.count(mark) for mark in ("<", ">", '"')]
    harmless, hostile = (render_markdown(page_of(text)) for text in ("plain", HOSTILE[kind]))
    assert structure(hostile) == structure(harmless)


def structure(markdown: str) -> list[str]:
    """The markup of a page, without its text; a text of several paragraphs has them."""
    inline = [child for token in tokens(markdown) for child in token.children or ()]
    marks = [token.type for token in (*tokens(markdown), *inline)]
    return [
        mark
        for mark in marks
        if mark not in {"inline", "text", "text_special", "softbreak"} and "paragraph" not in mark
    ]


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_study_shows_data_and_obeys_none(kind: str):
    def page(text: str) -> str:
        best = {"variant": text, "mean": 1.0, "dimension": 8}
        return _page(
            recipe="tiny", description=text, best=best, variants=1, runs=1, plots={}, table=html_table([text], [])
        )

    assert page(HOSTILE[kind]).count("<") == page("plain").count("<")


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_the_ui_shows_of_data_is_no_markup(kind: str):
    table = to_metadata(Rows([{"text": HOSTILE[kind]}])).md_str
    assert shown(table)[1] == {"table_open", "thead_open", "tr_open", "th_open", "th_close", "tr_close", "thead_close",
                               "tbody_open", "td_open", "td_close", "tbody_close", "table_close"}  # fmt: skip
    assert shown(to_metadata(Picture(b"x", HOSTILE[kind])).md_str)[1] == {"image"}
    assert to_metadata(Markdown("**ours**")).md_str == "**ours**"


@pytest.mark.parametrize("kind", HOSTILE)
def test_labels_of_a_figure_are_no_formulas(kind: str):
    def draw(axes: Any) -> None:
        axes.bar([HOSTILE[kind], "other"], np.arange(2))
        axes.set_title(HOSTILE[kind])

    assert figure(8, 6, draw).startswith(b"\x89PNG")
