"""How much the student's gain over the base model varies with the seed: the demo's recipe, one run per seed.

    python -m benchmarks.seeds [--seeds 3]

Corpus and teacher vectors do not depend on the seed, so they are made once.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import typer
import yaml

from benchmarks import write_row

ROOT = Path(__file__).parent.parent
STELLA = str(Path(sys.executable).with_name("stella"))


def main(seeds: int = 3, recipe: Path = ROOT / "recipes" / "demo.yaml") -> None:
    """Run the recipe once per seed and compare."""
    rows = []
    for seed in range(seeds):
        raw = yaml.safe_load(recipe.read_text())
        raw |= {"name": f"{raw['name']}_seed_{seed}", "seed": seed}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{raw['name']}.yaml"
            path.write_text(yaml.safe_dump(raw))
            subprocess.run([STELLA, "run", str(path)], check=True, stdout=subprocess.DEVNULL)
            done = subprocess.run([STELLA, "report", str(path), "--json"], check=True, capture_output=True, text=True)
        report = json.loads(done.stdout)
        means = {(model["name"], model["dimension"]): model["mean"] for model in report["models"]}
        last = report["models"][-1]["name"]
        rows.append(
            {
                "seed": seed,
                "base_model": max(v for (name, _), v in means.items() if name == "base_model"),
                "by_dimension": {dim: mean for (name, dim), mean in means.items() if name == last},
                "gain": report["gain"]["value"],
                "retention": {name: shares["mean"]["value"] for name, shares in report["retention"].items()},
            }
        )
    gains = [row["gain"] for row in rows]
    write_row(
        "seeds",
        {"runs": rows, "gain_mean": round(statistics.mean(gains), 2), "gain_spread": round(max(gains) - min(gains), 2)},
    )


if __name__ == "__main__":
    typer.run(main)
