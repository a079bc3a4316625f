"""A recipe with a mistake is refused with the file, the key, the value and the remedy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stella_assets.recipe import RecipeError, Stage, read_recipe
from tests.conftest import write_recipe

Raw = dict[str, Any]


def refusal(tmp_path: Path, raw: Raw) -> str:
    with pytest.raises(RecipeError) as caught:
        read_recipe(write_recipe(tmp_path, raw))
    return str(caught.value)


def test_a_misspelt_key_is_named_with_the_likely_one(tmp_path: Path, raw: Raw):
    raw["stages"][1]["learning_rat"] = raw["stages"][1].pop("learning_rate")
    message = refusal(tmp_path, raw)
    assert (
        f"{tmp_path}/tiny.yaml: stages.1.learning_rat: there is no such key. Did you mean `learning_rate`?" in message
    )


MISTAKES: dict[str, tuple[Callable[[Raw], Any], list[str]]] = {
    "negative steps": (lambda r: r["stages"][0].update(steps=-3), ["stages.0.steps", "greater than 0", "-3"]),
    "hub id without revision": (
        lambda r: r["teachers"][0].update(model="org/name"),
        ["teachers.0", "revision: <commit>", "./org/name"],
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


def test_batches_are_smaller_where_there_would_be_too_few_steps():
    stage = {"train_layers": "all", "full_head": {"cosine": 1}, "learning_rate": 1e-3, "min_steps": 100}
    for texts, batch in ((100_000, 512), (20_000, 200), (3_000, 30), (500, 16), (10, 10)):
        assert Stage(**stage, texts=texts, batch_size=min(512, texts)).batch == batch


def test_files_that_are_no_recipe_are_refused(tmp_path: Path):
    path = tmp_path / "broken.yaml"
    for content, expected in [
        (b"name: [unclosed", "not valid YAML"),
        (b"name: a\nname: b\n", "key 'name' is there twice"),
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
