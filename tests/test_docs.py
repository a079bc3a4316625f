"""The documentation names what there is."""

import re
from pathlib import Path

from stella_assets.recipe import ConfigModel, PathAware, Recipe

ROOT = Path(__file__).parent.parent


def all_parts(part: type[ConfigModel] = ConfigModel) -> set[type[ConfigModel]]:
    return {part}.union(*(all_parts(child) for child in part.__subclasses__()))


def test_every_key_of_a_recipe_is_in_its_reference():
    text = (ROOT / "docs" / "recipe.md").read_text()
    named = {word for code in re.findall(r"`([^`]+)`", text) for word in re.split(r"[.\s,]+", code)}
    keys = {key for part in all_parts() - {ConfigModel, PathAware, Recipe} for key in part.model_fields}
    assert keys - named == set()


def test_links_and_pictures_of_the_documentation_exist():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"
