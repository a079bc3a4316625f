"""Recipes, and the files that they point to, with one thing changed: values, keys, structure, bytes, encodings.

python -m tests.faults.mutate [CASES] [SEED]

Prints every case that ends in anything but a valid recipe or a message with a remedy.
"""

import copy
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from stella_assets.core.errors import EXPECTED
from stella_assets.pipelines.remedies import describe, remedy_of
from stella_assets.recipe import read_recipe
from stella_assets.recipe.preflight import check_recipe, remarks
from stella_assets.storage.workspace import Workspace
from tests.conftest import TINY
from tests.faults.hostile import CONTENTS, KEYS, VALUES, YAML
from tests.models import build

ROOT = Path(__file__).parents[2]
RAW = re.compile(
    r"Errno|Traceback|object at 0x|NoneType|unhashable|not subscriptable|has no attribute|codec can't|invalid literal"
    r"|Expecting |<class|not iterable|to unpack|JSONDecodeError|ValidationError|pydantic|recursion|list indices"
    r"|flatbuffers|string_type|unexpected keyword|positional argument|Extra data|surrogates not allowed|embedded null"
)
"""What messages of Python and of libraries have, and no message of ours."""

SECONDS = 120
"""In which a case must end; e.g. a pipe would be waited for."""


@dataclass(frozen=True)
class Case:
    """A recipe's file in a folder of its own, and what was changed."""

    recipe: Path
    change: str


@dataclass(frozen=True)
class Result:
    """How a case ended: `valid`, `refused`, or what is wrong with that."""

    case: Case
    ended: str
    said: str = ""


class HangError(BaseException):
    """A case does not end; no `except Exception` may take it for an error."""


class Mutator:
    """Makes cases in one folder, one after the other; each takes back the one before.

    Args:
        folder: A new one.
        random: Decides everything.
    """

    def __init__(self, folder: Path, random: random.Random) -> None:
        self.random = random
        self.originals = folder / "originals"
        self.folder = folder / "mutated"
        self.originals.mkdir(parents=True)
        for source in (*sorted((ROOT / "recipes").glob("*.yaml")), ROOT / "examples" / "small.yaml"):
            shutil.copy(source, self.originals)
        shutil.copytree(ROOT / "recipes" / "environments", self.originals / "environments")
        self._own_files()
        self.recipes = sorted(path.name for path in self.originals.glob("*.yaml"))
        # Names that a recipe can point to.
        (self.originals / "folder").mkdir()
        (self.originals / "file").write_text("A text that is long enough to be read.\n")
        (self.originals / "empty").touch()
        (self.originals / "list.json").write_text("[1, 2]")
        (self.originals / "loop").symlink_to("loop")
        (self.originals / "dangling").symlink_to("nothing")
        os.mkfifo(self.originals / "pipe")
        self._restore()

    def _own_files(self) -> None:
        """A recipe with a local model, and a source of every kind of file."""
        build("bert", self.originals)
        rows = [{"text": f"Sentence number {number} is a text like any other.", "n": number} for number in range(20)]
        (self.originals / "a.txt").write_text("\n".join(row["text"] for row in rows))
        (self.originals / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (self.originals / "a.csv").write_text("text,n\n" + "\n".join(f"{row['text']},{row['n']}" for row in rows))
        pq.write_table(pa.Table.from_pylist(rows), self.originals / "a.parquet")
        (self.originals / "tasks").mkdir()
        pairs = {
            "sentence1": [row["text"] for row in rows],
            "sentence2": [row["text"] for row in rows],
            "score": [1.0] * 20,
        }
        pq.write_table(pa.table(pairs), self.originals / "tasks" / "test.parquet")
        (self.originals / "scores.csv").write_text("model,task,score\nx,STS12,0.5\n")
        raw = copy.deepcopy(TINY) | {"name": "own"}
        kinds = {"text": "a.txt", "jsonl": "a.jsonl", "csv": "a.csv", "parquet": "a.parquet"}
        raw["corpus"]["sources"] = [
            {"name": kind, "kind": kind, "path": f"./{file}", "licence": "MIT"} for kind, file in kinds.items()
        ]
        raw["teachers"][0] |= {"model": "./bert"}
        raw["student"] |= {
            "model": "./bert",
            "keep_layers": None,
            "matryoshka_dims": [3, 2],
            "matryoshka_heads": "prefix",
        }
        raw["release"]["dimension"] = 3
        raw["stages"] = [{"method": "closed_form", "train_layers": 0, "full_head": {"cosine": 1}}]
        raw["teachers"][1] |= {"dim": 8}
        raw["evaluation"] |= {"reference_scores": "./scores.csv", "held_out": {"kinds": ["retrieval"]}}
        (self.originals / "own.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))

    def _restore(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for path in self.originals.iterdir():
            # A copy where files are changed, a link where they are not.
            if path.suffix == ".yaml":
                continue
            (self.folder / path.name).symlink_to(path.readlink() if path.is_symlink() else path)

    def cases(self, count: int) -> Iterator[Case]:
        """The first `count` cases."""
        ways: list[Callable[[str], str]] = [
            self._value, self._value, self._value, self._key, self._removed, self._doubled, self._moved, self._yaml,
            self._character, self._encoding, self._itself, self._content,
        ]  # fmt: skip
        for number in range(count):
            way = ways[number % len(ways)]
            name = "own.yaml" if way == self._content else self.random.choice(self.recipes)
            change = way(name)
            yield Case(self.folder / name, f"{number}: {name}: {change}")
            self._restore()

    def _places(self, at: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, Any, str]]:
        items = at.items() if isinstance(at, dict) else enumerate(at) if isinstance(at, list) else ()
        for key, value in items:
            yield at, key, ".".join(map(str, (*path, key)))
            yield from self._places(value, (*path, key))

    def _tree(self, name: str) -> tuple[dict[str, Any], Any, Any, str]:
        tree = yaml.safe_load((self.originals / name).read_text(encoding="utf-8"))
        return tree, *self.random.choice(list(self._places(tree)))

    def _write(self, name: str, tree: Any) -> None:
        (self.folder / name).write_bytes(
            yaml.dump(tree, sort_keys=False, Dumper=_Dumper).encode("utf-8", "surrogatepass")
        )

    def _value(self, name: str) -> str:
        tree, holder, key, path = self._tree(name)
        value = self.random.choice(VALUES)
        holder[key] = value
        self._write(name, tree)
        return f"{path} = {value!r:.80}"

    def _key(self, name: str) -> str:
        tree, holder, key, path = self._tree(name)
        new = self.random.choice(KEYS)
        if isinstance(holder, dict):
            if self.random.random() < 0.5:
                holder[new] = holder.pop(key)
            else:
                holder[new] = self.random.choice(VALUES)
        else:
            holder[key] = {new: holder[key]}
        self._write(name, tree)
        return f"{path}: key {new!r}"

    def _removed(self, name: str) -> str:
        tree, holder, key, path = self._tree(name)
        del holder[key]
        self._write(name, tree)
        return f"without {path}"

    def _doubled(self, name: str) -> str:
        tree, holder, key, path = self._tree(name)
        way = self.random.randrange(3)
        if way == 0 and isinstance(holder, list):
            holder.append(holder[key])
        else:
            holder[key] = [holder[key]] * 2 if way == 1 else {"x": holder[key]} if way == 2 else [holder[key]]
        self._write(name, tree)
        return f"{path} doubled or wrapped"

    def _moved(self, name: str) -> str:
        tree, holder, key, path = self._tree(name)
        _, other, place, of = self._tree(name)
        holder[key] = other[place]
        self._write(name, tree)
        return f"{path} = what {of} is"

    def _yaml(self, name: str) -> str:
        tree, holder, key, path = self._tree(name)
        holder[key] = "PLACE"
        text, own = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), self.random.choice(YAML)
        (self.folder / name).write_bytes(text.replace("PLACE", own).encode("utf-8", "surrogatepass"))
        return f"{path} = YAML {own!r:.60}"

    def _character(self, name: str) -> str:
        content = bytearray((self.originals / name).read_bytes())
        at = self.random.randrange(len(content))
        way = self.random.randrange(4)
        if way == 0:
            del content[at:]
        elif way == 1:
            content[at] ^= 1 << self.random.randrange(8)
        elif way == 2:
            del content[at : at + self.random.randrange(1, 30)]
        else:
            content[at:at] = self.random.choice(
                list(":{}[]&*!|>'\"%@`#-?,\t\0\r\n<~")
            ).encode() * self.random.randrange(1, 4)
        (self.folder / name).write_bytes(content)
        return f"bytes, way {way} at {at}"

    def _encoding(self, name: str) -> str:
        text = (self.originals / name).read_text(encoding="utf-8")
        encoding = self.random.choice(
            ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-32", "latin-1", "utf-7", "cp037"]
        )
        before = self.random.choice(
            ["", "\0", "\x1b", "é: 1\n", "---\n", "%YAML 3.0\n---\n", "--- a\n--- b\n", "- a\n", "x\n", "# only\n"]
        )
        after = self.random.choice(
            [
                "",
                "\0",
                "\n...\nx",
                "\n---\nname: two\n",
                "\nname: two\n",
                "\n<<: 1\n",
                "\n<<: {name: x}\n",
                "\n? [a]\n: b\n",
            ]
        )
        (self.folder / name).write_bytes((before + text + after).encode(encoding, "replace"))
        return f"{encoding} of {before!r} ... {after!r}"

    def _itself(self, name: str) -> str:
        path, way = self.folder / name, self.random.randrange(7)
        if way == 0:
            path.mkdir()
        elif way == 1:
            path.symlink_to(name)
        elif way == 2:
            path.symlink_to("nothing")
        elif way == 3:
            os.mkfifo(path)
        elif way == 4:
            path.write_bytes(self.random.choice(CONTENTS))
        elif way == 5:
            path.write_text(self.random.choice(YAML), encoding="utf-8", errors="surrogatepass")
        return f"the file itself, way {way}"

    def _content(self, name: str) -> str:
        """A file that the recipe points to."""
        shutil.copy(self.originals / name, self.folder)
        files = [
            path.relative_to(self.originals) for path in sorted(self.originals.glob("bert/**/*")) if path.is_file()
        ]
        files += [Path(file) for file in ("a.txt", "a.jsonl", "a.csv", "a.parquet", "scores.csv")]
        chosen = self.random.choice(files)
        top = self.folder / chosen.parts[0]
        if (self.originals / chosen.parts[0]).is_dir():
            top.unlink()
            shutil.copytree(self.originals / chosen.parts[0], top)
        path, way = self.folder / chosen, self.random.randrange(8)
        content = (self.originals / chosen).read_bytes()
        path.unlink()
        if way == 0:
            path.mkdir()
        elif way == 1:
            path.symlink_to(path.name)
        elif way == 2:
            path.write_bytes(content[: self.random.randrange(len(content))])
        elif way == 3:
            flipped = bytearray(content)
            flipped[self.random.randrange(min(len(content), 2000))] ^= 1 << self.random.randrange(8)
            path.write_bytes(flipped)
        elif way in (4, 5) and path.suffix == ".json":
            self._json(path, content)
        elif way != 6:
            path.write_bytes(self.random.choice(CONTENTS))
        return f"{chosen}, way {way}"

    def _json(self, path: Path, content: bytes) -> None:
        tree = json.loads(content)
        places = list(self._places(tree))
        if places:
            holder, key, _ = self.random.choice(places)
            plain = [value for value in VALUES if isinstance(value, str | int | float | list | dict | None)]
            holder[key] = self.random.choice(
                [value for value in plain if not isinstance(value, dict) or not value or "" in value]
            )
        path.write_text(json.dumps(tree))


class _Dumper(yaml.Dumper):
    """YAML of every value, keys that are no text included."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def ended(case: Case, workspace: Workspace) -> Result:
    """Read and check the recipe as `stella validate --no-rehearsal` does.

    Args:
        case: What to read.
        workspace: Where a run would write.
    """
    signal.alarm(SECONDS)
    try:
        recipe = read_recipe(case.recipe)
        check_recipe(recipe, workspace)
        remarks(recipe)
    except EXPECTED as error:
        said = describe(error)
        # What a library says may follow a sentence of ours, in parentheses.
        ours = re.sub(r"\(.*\)", "", said, flags=re.DOTALL)
        remedy = getattr(error, "remedy", "") or remedy_of(error)
        # Each mistake has a line, and one change may make many mistakes.
        longest = max(map(len, said.splitlines()), default=0)
        faults = {"without a remedy": not remedy.strip(), "raw message": RAW.search(ours), "long": longest > 5000}
        return Result(case, ", ".join(fault for fault, found in faults.items() if found) or "refused", said)
    except Exception:  # noqa: BLE001 (this is what the test looks for)
        return Result(case, "traceback", traceback.format_exc())
    except HangError:
        return Result(case, f"not done after {SECONDS} s", traceback.format_exc())
    finally:
        signal.alarm(0)
    return Result(case, "valid")


def _stop(*_: object) -> None:
    raise HangError


def results(folder: Path, count: int, seed: int) -> Iterator[Result]:
    """How the first `count` cases of a seed end."""
    workspace = Workspace(folder / "workspace")
    signal.signal(signal.SIGALRM, _stop)
    for case in Mutator(folder, random.Random(seed)).cases(count):
        yield ended(case, workspace)


def main() -> None:
    """Print what went wrong, and the counts."""
    count, seed = (int(word) for word in (*sys.argv[1:], "1000", "0")[:2])
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for result in results(Path(folder), count, seed):
            counts[result.ended.partition(" (")[0]] += 1
            if result.ended not in {"valid", "refused"}:
                print(f"== {result.case.change}\n{result.ended}: {result.said[-1500:]}")
    print(dict(counts))


if __name__ == "__main__":
    main()
