"""A recipe with a mistake is refused with the file, the key, the value and the remedy."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stella_assets.core.secrets import hide_secrets
from stella_assets.recipe import RecipeError, read_recipe
from stella_assets.recipe.former_keys import FORMER_KEYS, FORMER_VALUES
from stella_assets.recipe.presets import expand_preset
from stella_assets.recipe.read import REMEDY
from stella_assets.teachers.api.prices import published
from stella_assets.teachers.kinds.base import TEACHERS
from stella_assets.training.stages import STAGES
from tests.conftest import write_recipe

Raw = dict[str, Any]


def refusal(tmp_path: Path, raw: Raw) -> str:
    with pytest.raises(RecipeError) as caught:
        read_recipe(write_recipe(tmp_path, raw))
    return str(caught.value)


def test_a_model_without_a_dot_before_it_is_the_folder_that_exists(tmp_path: Path, raw: Raw):
    def read(**values: str) -> Any:
        raw["teachers"][0] |= {"model": "models/house", **values}
        raw["student"]["model"] = "models/house"
        return read_recipe(write_recipe(tmp_path, raw))

    with pytest.raises(RecipeError, match="read as a hub id"):
        read()
    (tmp_path / "models" / "house").mkdir(parents=True)
    recipe = read()
    for each in (recipe.student, recipe.teachers[0]):
        assert not each.on_hub
        assert each.resolve(each.model) == tmp_path / "models" / "house"
    raw["student"]["model"] = raw["teachers"][0]["model"] = "./models/house"
    assert read_recipe(write_recipe(tmp_path, raw)).digest == recipe.digest
    # With a commit it is of the hub, also where a folder has the name.
    raw["student"]["model"] = "./models/house"
    raw["teachers"][0] |= {"model": "models/house", "revision": "0" * 40}
    assert read_recipe(write_recipe(tmp_path, raw)).teachers[0].on_hub


def test_a_name_that_no_folder_can_have_is_refused_as_every_other_one(tmp_path: Path, raw: Raw):
    raw["teachers"][0]["model"] = "x" * 300
    assert "read as a hub id" in refusal(tmp_path, raw)


def with_service(raw: Raw, **changes: Any) -> Raw:
    """The tiny recipe with a teacher behind an API."""
    api = {"kind": "api", "name": "far", "licence": "x", "service": {"dialect": "openai", "model": "m"}, "key": None}
    terms = {"distribution": "internal", "url": "https://example.com", "read_on": "2026-11-27"}
    raw["teachers"] = [{**api, "dim": 8, "price": 1, "terms": terms, **changes}]
    return raw


@pytest.mark.parametrize("day", ["2999-01-31", date(2999, 1, 31)])
def test_terms_that_nobody_can_have_read_yet_are_refused(tmp_path: Path, raw: Raw, day: str | date):
    terms = with_service(raw)["teachers"][0]["terms"]
    terms["read_on"] = day
    shown = f"{tmp_path}/tiny.yaml: teachers.0.terms.read_on: this day is in the future; give the day on which"
    assert (said := refusal(tmp_path, raw)).startswith(shown)
    assert "(value: " in said
    assert "2999-01-31" in said
    # Everywhere on Earth.
    terms["read_on"] = str((datetime.now(UTC) + timedelta(hours=14)).date())
    assert read_recipe(write_recipe(tmp_path, raw)).teachers[0].terms.distribution == "internal"
    terms["read_on"] = str((datetime.now(UTC) + timedelta(days=2)).date())
    assert "is in the future" in refusal(tmp_path, raw)


def test_the_shipped_prices_were_read_in_the_past():
    facts = published("openai", "text-embedding-3-small")
    assert facts is not None
    assert facts.read_on <= datetime.now(UTC).date()


VOYAGE = "256, 512, 1024, 2048"
NOT_OFFERED = [
    ("openai", "text-embedding-3-small", {"dimensions": 1537}, "1 to 1536"),
    ("openai", "text-embedding-3-large", {"dimensions": 4096}, "1 to 3072"),
    ("openai", "text-embedding-ada-002", {"dimensions": 512}, "1536"),
    ("cohere", "embed-v5.0-fast", {"dimensions": 1000}, "256, 512, 768, 1024, 1536, 2048"),
    ("cohere", "embed-v5.0-fast", {"dim": 1000}, "256, 512, 768, 1024, 1536, 2048"),
    ("cohere", "embed-english-v3.0", {"dimensions": 512}, "1024"),
    ("voyage", "voyage-4", {"dimensions": 768}, VOYAGE),
    ("voyage", "voyage-3.5-lite", {"dim": 768}, VOYAGE),
    ("gemini", "gemini-embedding-001", {"dimensions": 3073}, "1 to 3072"),
    ("gemini", "models/gemini-embedding-2", {"dimensions": 3073}, "1 to 3072"),
    ("mistral", "mistral-embed", {"dimensions": 512}, "1024"),
]


@pytest.mark.parametrize(("dialect", "model", "stated", "offered"), NOT_OFFERED)
def test_dimensions_that_a_provider_does_not_offer_are_refused(
    tmp_path: Path, raw: Raw, dialect: str, model: str, stated: dict[str, int], offered: str
):
    [(setting, number)] = stated.items()
    service = {"dialect": dialect, "model": model}

    def stating(number: int | None, **more: str) -> Raw:
        asked = service | more | ({"dimensions": number} if setting == "dimensions" else {})
        return with_service(raw, service=asked, dim=number if setting == "dim" else None)

    said = refusal(tmp_path, stating(number))
    assert f"{setting} {number}: not offered by {model}, as published on 20" in said
    assert f"use one of {offered}, or leave it out" in said
    whole = int(offered.rsplit(", ", maxsplit=1)[-1].removeprefix("1 to "))
    assert read_recipe(write_recipe(tmp_path, stating(whole))).teachers[0].dimensions == whole
    # Nobody knows what another server offers, or a model that is not in the file.
    for unknown in ({"base_url": "http://127.0.0.1:8000/v1"}, {"model": "unheard"}):
        assert read_recipe(write_recipe(tmp_path, stating(number, **unknown))).teachers[0].dimensions == number


@pytest.mark.parametrize("key", ["sk-proj-0123456789abcdefghij", "Xv3kQ9bW1zR7tYp2LmN8aC4dE6fG0hJ5", "two words"])
def test_a_key_in_place_of_a_variable_is_refused_and_not_shown(tmp_path: Path, raw: Raw, key: str):
    with_service(raw, key=key)
    with pytest.raises(RecipeError, match=r"teachers.0.key: not the name of an environment variable") as refused:
        read_recipe(write_recipe(tmp_path, raw))
    assert key not in str(refused.value)
    raw["teachers"][0]["key"] = "AZURE_OPENAI_KEY_WEST_EUROPE_2"
    assert read_recipe(write_recipe(tmp_path, raw)).teachers[0].key == "AZURE_OPENAI_KEY_WEST_EUROPE_2"


@pytest.mark.parametrize("host", ["example.org", "a" * 70_000])
def test_an_address_that_no_client_takes_is_refused_by_its_length(tmp_path: Path, raw: Raw, host: str):
    address = f"https://{host}/{'v' * 70_000}"
    with_service(raw, service={"dialect": "openai", "model": "m", "base_url": address})
    with pytest.raises(RecipeError) as refused:
        read_recipe(write_recipe(tmp_path, raw))
    assert f"base_url: an address of {len(address):,} characters; 2,048 are allowed" in str(refused.value)
    assert len(str(refused.value)) < 1000


SECRETS = ["sk-proj-0123456789abcdefghij", "Xv3kQ9bW1zR7tYp2LmN8aC4dE6fG0hJ5", "pa-9Zk3jQ81xTb2-Wm5c_Ro7"]
OPENAI = {"dialect": "openai", "model": "m"}
MISPLACED: dict[str, tuple[Callable[[str], Raw], str]] = {
    "user of an address": (
        lambda key: {"service": OPENAI | {"base_url": f"https://me:{key}@example.org/v1"}},
        "teachers.0.service.base_url: an address has no user, password",
    ),
    "query of an address": (
        lambda key: {"service": OPENAI | {"base_url": f"https://example.org/v1?key={key}"}},
        "teachers.0.service.base_url: an address has no user, password",
    ),
    "fragment of an address": (
        lambda key: {"service": OPENAI | {"base_url": f"https://example.org/v1#{key}"}},
        "teachers.0.service.base_url: an address has no user, password",
    ),
    "port of an address": (
        lambda key: {"service": OPENAI | {"base_url": f"https://example.org:{key}/v1"}},
        "teachers.0.service.base_url: not an address",
    ),
    "in place of an address": (lambda key: {"service": OPENAI | {"base_url": key}}, "service.base_url: not an address"),
    "address of the terms": (
        lambda key: {"terms": {"distribution": "internal", "url": f"https://me:{key}@x.org", "read_on": "2026-01-01"}},
        "teachers.0.terms.url: String should match",
    ),
    "part of a request": (
        lambda key: {"service": OPENAI | {"extra": {"metadata": {"api-key": key}}}},
        "teachers.0.service: extra: has what looks like a key of a service",
    ),
    "role": (lambda key: {"service": OPENAI | {"input_types": {key: "a"}}}, "teachers.0.service: input_types has"),
    "headers": (
        lambda key: {"service": OPENAI | {"headers": {"Authorization": f"Bearer {key}"}}},
        "teachers.0.service.headers: there is no such key",
    ),
    "a key of the name that other tools have": (lambda key: {"api_key": key}, "teachers.0.api_key: there is no such"),
    "dialect": (lambda key: {"service": {"dialect": key, "model": "m"}}, "teachers.0.service.dialect: there is no"),
    "number": (lambda key: {"dim": key}, "teachers.0.dim: Input should be a valid integer"),
}


@pytest.mark.parametrize("key", SECRETS)
@pytest.mark.parametrize("place", MISPLACED)
def test_a_key_is_refused_and_not_shown_wherever_it_was_written(tmp_path: Path, raw: Raw, place: str, key: str):
    written, expected = MISPLACED[place]
    said = refusal(tmp_path, with_service(raw, **written(key)))
    assert f"{tmp_path}/tiny.yaml: " in said
    assert expected in said
    assert not any(key[start : start + 8] in said for start in range(len(key) - 8))
    # Whoever makes the settings in Python reads pydantic's own message.
    with pytest.raises(ValidationError) as caught:
        TEACHERS["api"].model_validate(raw["teachers"][0])
    assert place in ("role", "dialect") or key not in str(caught.value)


@pytest.mark.parametrize("setting", ["model", "server", "base_url"])
def test_what_begins_as_a_key_does_is_refused_in_all_that_is_kept_of_a_service(tmp_path: Path, raw: Raw, setting: str):
    value = f"https://example.org/{SECRETS[0]}/v1" if setting == "base_url" else SECRETS[0]
    said = refusal(tmp_path, with_service(raw, service=OPENAI | {setting: value}))
    assert f"teachers.0.service: {setting}: has what looks like a key of a service" in said
    assert SECRETS[0] not in said
    kept = {"model": "sk-bert-base-multilingual", "server": "gpu-box", "base_url": "https://x.org/accounts/a1b2/v1"}
    assert read_recipe(write_recipe(tmp_path, with_service(raw, service=OPENAI | kept))).teachers[0].dim == 8


BROKEN = [
    ("key: {}: more", "Line 3, column {column}: mapping values are not allowed here."),
    ("key: '{}", "found unexpected end of stream"),
    ("key: [{}", "while parsing a flow sequence that begins in line 3, column 6: expected ',' or ']'"),
    ("key: *{}", "Line 3, column 6: found undefined alias."),
    ("key: !{} x", "Line 3, column 6: could not determine a constructor for the tag."),
    ("key: @{}", "Line 3, column 6: while scanning for the next token: found character '@' that cannot start"),
    ("key: &{0} x\nother: &{0} y", "found duplicate anchor; first occurrence that begins in line 3, column 6"),
    ("{0}: x\n{0}: y", "Line 4, column 1: key '***' is given twice."),
]


@pytest.mark.parametrize("key", SECRETS)
@pytest.mark.parametrize(("line", "expected"), BROKEN)
def test_what_is_not_yaml_is_told_without_the_line_itself(tmp_path: Path, line: str, expected: str, key: str):
    path = tmp_path / "broken.yaml"
    path.write_text(f"name: broken\ndescription: x\n{line.format(key)}\n", encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: not valid YAML. Line ")
    assert expected.format(column=6 + len(key)) in said
    assert key not in said
    assert "\n" not in said


def test_names_and_commits_are_shown_whole():
    for words in (
        "multilingual-E5-large-instruct", "Alibaba-NLP/gte-Qwen2-1.5B-instruct", "sk-embedding-large-v2",
        "Qwen3-Embedding-8B-something", "all-MiniLM-L6-v2-onnx-int8-avx512", "./models/stella_en_1.5B_v5", "a" * 40,
    ):  # fmt: skip
        assert hide_secrets(f"model {words} is not there") == f"model {words} is not there"


def test_a_misspelt_key_is_named_with_the_likely_one(tmp_path: Path, raw: Raw):
    raw["stages"][1]["learning_rat"] = raw["stages"][1].pop("learning_rate")
    message = refusal(tmp_path, raw)
    assert (
        f"{tmp_path}/tiny.yaml: stages.1.learning_rat: there is no such key. Did you mean `learning_rate`?" in message
    )


def test_a_key_of_another_kind_is_not_taken_for_a_misspelt_one(tmp_path: Path, raw: Raw):
    raw["teachers"][0] |= {"kind": "sentence_transformers", "price": 3}
    assert "teachers.0.price: this kind has no such key, another one has. Remove it." in refusal(tmp_path, raw)


MISTAKES: dict[str, tuple[Callable[[Raw], Any], list[str]]] = {
    "negative steps": (lambda r: r["stages"][0].update(steps=-3), ["stages.0.steps", "greater than 0", "-3"]),
    "hub id without revision": (
        lambda r: r["teachers"][0].update(model="org/name"),
        ["teachers.0", "'org/name' is read as a hub id", "revision: <commit>", "no folder of this name in"],
    ),
    "remote code without a commit": (
        lambda r: r["teachers"][0].update(model="org/name", revision="main", trust_remote_code=True),
        ["40 hexadecimal digits"],
    ),
    "no text left to train on": (lambda r: r["corpus"].update(test=0.97), ["corpus", "leave no texts to train on"]),
    "layers out of order": (lambda r: r["student"].update(keep_layers=[3, 0]), ["keep_layers", "must rise"]),
    "two teachers of one name": (lambda r: r["teachers"][1].update(name="minilm"), ["two teachers", "minilm"]),
    "all losses off": (lambda r: r["stages"][0].update(full_head={"cosine": 0}), ["nothing would be learnt"]),
    "cosine for a short head": (
        lambda r: r["stages"][2]["matryoshka_heads"].update(cosine=10),
        ["stages.2.matryoshka_heads.cosine", "10"],
    ),
    "fewest steps of a number of steps": (lambda r: r["stages"][0].update(min_steps=9), ["stages.0", "needs `texts`"]),
    "unknown prompt": (lambda r: r["student"].update(query_prompts=["s2x"]), ["query_prompts", "s2x"]),
    "owner nobody can write to": (lambda r: r.update(owners=["somebody"]), ["owners", "'somebody' is neither"]),
    "infinite weight": (lambda r: r["teachers"][0].update(weight=float("inf")), ["teachers.0.weight"]),
    "reserved name": (lambda r: r.update(name="lancedb"), ["lancedb", "choose another"]),
    "unknown kind": (lambda r: r["teachers"][0].update(kind="word2vec"), ["teachers.0", "word2vec"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_an_impossible_value_is_refused_by_key_and_remedy(mistake: str, tmp_path: Path, raw: Raw):
    change, expected = MISTAKES[mistake]
    change(raw)
    message = refusal(tmp_path, raw)
    for part in [f"{tmp_path}/", *expected]:
        assert part in message


def descent(**more: Any) -> Any:
    return STAGES["descent"](
        method="descent", **{"train_layers": "all", "full_head": {"cosine": 1}, "learning_rate": 1e-3, **more}
    )


def test_batches_are_smaller_where_there_would_be_too_few_steps():
    for texts, batch in ((100_000, 512), (20_000, 200), (3_000, 30), (500, 16), (10, 10)):
        assert descent(min_steps=100, texts=texts, batch_size=min(512, texts)).texts_per_batch(train=1) == batch


@pytest.mark.parametrize(
    ("train", "texts", "batch"),
    [(100, 10_000, 40), (5_000, 15_000, 60), (50_000, 150_000, 64), (8_000_000, 850_000, 64)],
)
def test_a_stage_in_passes_is_as_long_as_its_corpus_within_a_floor_and_a_ceiling(train: int, texts: int, batch: int):
    stage = descent(epochs=3, min_texts=10_000, max_texts=850_000, batch_size=64, min_steps=250)
    assert (stage.texts_to_see(train), stage.texts_per_batch(train)) == (texts, batch)


def test_a_stage_of_fixed_length_keeps_the_settings_of_its_identity():
    assert not {"epochs", "min_texts", "max_texts"} & descent(steps=10).settings().keys()
    assert descent(epochs=0.5).settings()["epochs"] == 0.5


def test_a_preset_follows_the_corpus_unless_the_recipe_states_its_length():
    def lengths(stages: Any) -> list[dict[str, Any]]:
        keys = ("texts", "epochs", "min_texts", "max_texts")
        return [{key: stage[key] for key in keys if key in stage} for stage in expand_preset(stages)]

    assert lengths("robust") == [
        {},
        {"epochs": 3, "min_texts": 10_000, "max_texts": 850_000},
        {"epochs": 1, "min_texts": 5_000, "max_texts": 150_000},
    ]
    assert lengths({"preset": "robust", "texts": 11_000}) == [{}, {"texts": 9350}, {"texts": 1650}]
    assert lengths({"preset": "robust", "epochs": 2}) == [{}, {"epochs": 1.7}, {"epochs": 0.3}]
    assert [each["texts"] for each in lengths("paper")] == [512_000, 896_000, 281_600]
    for wrong in ({"texts": 1, "epochs": 1}, {"epochs": 0}, {"epochs": True}, {"texts": 0.5}, {"steps": 3}):
        with pytest.raises(ValueError, match=r"next to `preset`|must be a"):
            expand_preset({"preset": "robust", **wrong})


def test_the_preset_joining_has_a_stage_for_each_teacher_that_joins(raw: dict[str, Any], tmp_path: Path):
    raw["student"]["matryoshka_dims"] = [16]
    raw["release"]["dimension"] = 16
    for names in (["a"], ["a", "b"], ["a", "b", "c"]):
        raw["teachers"] = [{"name": name, "kind": "lsa", "dim": 8, "licence": "MIT"} for name in names]
        raw["stages"] = {"preset": "joining", "texts": 20_000}
        recipe = read_recipe(write_recipe(tmp_path, raw))
        taught = [stage.teachers for stage in recipe.stages]
        assert taught == [*(tuple(names[:number]) for number in range(1, len(names) + 1)), None]
        assert sum(stage.texts for stage in recipe.stages) == pytest.approx(20_000, abs=3)
        assert [stage.trains_matryoshka_heads for stage in recipe.stages] == [False] * len(names) + [True]
        assert {loss.loss for stage in recipe.stages for loss in stage.full_head.losses} == {"cosine", "angular"}


def test_a_preset_hides_no_error_of_the_teachers(raw: dict[str, Any], tmp_path: Path):
    raw["teachers"][0]["weight"] = -1
    raw["stages"] = "joining"
    said = refusal(tmp_path, raw)
    assert re.search(r"teachers\.0\.\S*weight", said)
    assert "stages" not in said


RENAMED = [(place, old, new) for place, names in FORMER_KEYS.items() for old, new in names.items()]


@pytest.mark.parametrize(("place", "old", "new"), RENAMED, ids=[f"{place}.{old}" for place, old, _ in RENAMED])
def test_a_key_of_an_earlier_version_is_named_with_its_new_name(
    place: str, old: str, new: str, tmp_path: Path, raw: Raw
):
    raw["redistil"], raw["release"]["gate"] = {}, {}
    raw["stages"][2]["matryoshka_heads"] = {64: {"similarity": 1}} if place.endswith("heads.*") else {"similarity": 1}
    at: Any = raw
    keys = place.replace("stages.*", "stages.2").replace("heads.*", "heads.64").split(".")
    for key in keys:
        at = at[int(key)] if key.isdigit() else at[key]
    at[old] = at.pop(new, 1)
    written = ".".join([*keys, old])
    message = refusal(tmp_path, raw)
    assert f"{written}: this key is called `{new}` now. Rename it." in message
    assert "required" not in message  # that the new key is missing only follows


@pytest.mark.parametrize(("place", "old", "new"), [(p, o, n) for p, v in FORMER_VALUES.items() for o, n in v.items()])
def test_a_value_of_an_earlier_version_is_named_with_its_new_name(
    place: str, old: str, new: str, tmp_path: Path, raw: Raw
):
    key = place.split(".")[2]
    raw["stages"][2][key] = [old] if place.endswith("*") else old
    assert f"stages.2.{key}" in (message := refusal(tmp_path, raw))
    assert f"{old!r} is called {new!r} now. Rename it." in message


@pytest.mark.parametrize("kind", ["csv", "lance", "text", "parquet", "jsonl", "huggingface"])
def test_the_kind_of_a_source_is_not_a_part_of_the_path(kind: str, tmp_path: Path, raw: Raw):
    raw["corpus"]["sources"] = [{"name": "docs", "kind": kind, "licence": "MIT", "path": "x", "limit": "many"}]
    message = refusal(tmp_path, raw)
    assert "corpus.sources.0.limit: " in message
    assert f"sources.0.{kind}" not in message


def test_a_key_that_is_named_like_a_kind_stays_in_the_path(tmp_path: Path, raw: Raw):
    raw["corpus"]["sources"] = [{"name": "docs", "kind": "text", "licence": "MIT", "path": "x", "text": "body"}]
    assert "corpus.sources.0.text: there is no such key" in refusal(tmp_path, raw)


def test_a_mistake_in_the_only_source_is_the_only_message(tmp_path: Path, raw: Raw):
    raw["corpus"]["sources"] = [{"name": "docs", "kind": "csv", "path": "x"}]
    message = refusal(tmp_path, raw)
    place = f"{tmp_path}/tiny.yaml: corpus.sources.0.licence"
    assert message == f"{place}: this key is required. Add it; docs/recipe.md says what it means. {REMEDY}"
    raw["teachers"] = [{"name": "a", "kind": "lsa"}]
    assert "at least 1 item" not in refusal(tmp_path, raw)


def test_the_middle_of_a_value_that_nobody_would_read_is_left_out_of_a_message(tmp_path: Path, raw: Raw):
    raw["evaluation"]["prompts"] = {"query": "./n" * 5000}
    message = refusal(tmp_path, raw)
    assert "evaluation.prompts.query './n./n" in message
    assert "is not one of student.prompts and has no `{instruction}`" in message
    assert len(message) < 1000


def test_a_missing_kind_is_asked_for(tmp_path: Path, raw: Raw):
    del raw["teachers"][0]["kind"]
    assert "teachers.0.kind: this key is required" in refusal(tmp_path, raw)


def test_files_that_are_not_recipes_are_refused(tmp_path: Path):
    path = tmp_path / "broken.yaml"
    for content, expected in [
        (b"name: [unclosed", "not valid YAML"),
        (b"name: a\nname: b\n", "key 'name' is given twice"),
        (b"- a\n- b\n", "a recipe is a mapping"),
        (b"name: \xff\xfe", "not UTF-8 at byte 6"),
        (b"", "a recipe is a mapping"),
    ]:
        path.write_bytes(content)
        with pytest.raises(RecipeError, match=expected):
            read_recipe(path)
    with pytest.raises(RecipeError, match="there is no such recipe"):
        read_recipe(tmp_path / "absent.yaml")


def test_comments_and_key_order_do_not_change_the_digest_and_settings_do(tmp_path: Path, raw: Raw):
    path = write_recipe(tmp_path, raw)
    before = read_recipe(path).digest
    path.write_text("# a comment\n" + path.read_text(), encoding="utf-8")
    assert read_recipe(path).digest == before
    assert read_recipe(write_recipe(tmp_path, dict(reversed(raw.items())))).digest == before
    raw["stages"][0]["learning_rate"] = 0.003
    assert read_recipe(write_recipe(tmp_path, raw)).digest != before


def test_the_digest_does_not_depend_on_where_the_checkout_lies(tmp_path: Path, raw: Raw):
    raw["teachers"][0]["model"] = "./teacher"
    digests = set()
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        recipe = read_recipe(write_recipe(tmp_path / name, raw))
        assert recipe.teachers[0].resolve(recipe.teachers[0].model) == tmp_path / name / "teacher"
        digests.add(recipe.digest)
    assert len(digests) == 1


@pytest.mark.parametrize("path", sorted(Path("recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid_and_named_after_its_file(path: Path):
    assert read_recipe(path).name == path.stem
