"""What YAML allows and a recipe cannot hold."""

import pytest
import yaml

from stella_assets.recipe.yaml_file import load_yaml


@pytest.mark.parametrize("integer", ["0x" + "f" * 5000, str(2**64), f"-{2**64}"])
def test_an_integer_of_more_than_64_bits_is_refused_with_its_place(integer: str):
    with pytest.raises(yaml.YAMLError, match=r"^Line 1, column 10: this integer has more than 64 bits\.$"):
        load_yaml(f"{{layers: {integer}}}")


def test_an_integer_of_64_bits_is_read():
    assert load_yaml(f"seed: {2**64 - 1}") == {"seed": 2**64 - 1}
