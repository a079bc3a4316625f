"""Files as people have them. Each case says how many rows it has, which texts are kept, and what is dropped and why."""

import bz2
import codecs
import gzip
import io
import json
import lzma
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.parquet as pq


def text(number: int) -> str:
    return f"Sentence number {number} of this file is a text like any other"


TEN = [text(number) for number in range(10)]
UMLAUTS = [f"{each} über größere Häuser" for each in TEN]
CHINESE = [f"第{number}句话是一个普通的文本,没有别的意思。" for number in range(10)]
RUSSIAN = [f"Совершенно обыкновенное предложение {number} без особенного содержания" for number in range(10)]
THAI = [f"ประโยคที่{number}ของไฟล์นี้เหมือนประโยคอื่นทั่วไป" for number in range(10)]


@dataclass(frozen=True)
class Case:
    """One source.

    Attributes:
        files: Content by path, or a function that writes more than files into the folder.
        source: Its settings.
        rows: How many there are.
        kept: The texts of those that are kept.
        dropped: Where the others are, and a part of the reason.
        report: The public bug report that the files are like.
    """

    files: dict[str, bytes] | Callable[[Path], None]
    source: dict[str, Any]
    rows: int
    kept: list[str] = field(default_factory=lambda: TEN)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    report: str = ""


def jsonl(texts: list[str], **more: Any) -> str:
    return "".join(json.dumps({"text": each, **more}, ensure_ascii=False) + "\n" for each in texts)


def table(texts: list[str], delimiter: str = ",", header: str = "id,text", end: str = "\n") -> str:
    rows = [header.replace(",", delimiter), *(f"{number}{delimiter}{each}" for number, each in enumerate(texts))]
    return end.join(rows) + end


def parquet(columns: dict[str, Any] | pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, **options)
    return sink.getvalue()


def wrong_utf8(texts: list[str], wrong: bytes) -> bytes:
    """A string column of which one value is not UTF-8, which Arrow does not notice when it reads."""
    values = [*(each.encode() for each in texts), wrong]
    offsets = pa.array([0, *accumulate(map(len, values))], pa.int32())
    strings = pa.Array.from_buffers(
        pa.string(), len(values), [None, offsets.buffers()[1], pa.py_buffer(b"".join(values))]
    )
    return parquet({"text": strings})


def packed(codec: str, content: bytes) -> bytes:
    return pa.Codec(codec).compress(content, asbytes=True)


def damaged_group(folder: Path) -> None:
    """Three row groups; the bytes of the second one's values are gone."""
    path = folder / "data.parquet"
    texts = [text(number) for number in range(30)]
    path.write_bytes(parquet({"text": texts}, row_group_size=10, compression="zstd", use_dictionary=False))
    chunk = pq.read_metadata(path).row_group(1).column(0)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset : chunk.data_page_offset + chunk.total_compressed_size] = bytes(
        chunk.total_compressed_size
    )
    path.write_bytes(content)


def damaged_fragment(folder: Path) -> None:
    """Three files; the second one breaks off."""
    for number in range(3):
        texts = [text(each) for each in range(10 * number, 10 * number + 10)]
        table = lance.write_dataset(
            pa.table({"text": texts}), folder / "t.lance", mode="append" if number else "create"
        )
    path = folder / "t.lance" / "data" / table.get_fragments()[1].data_files()[0].path
    path.write_bytes(path.read_bytes()[:50])


def links(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "elsewhere").mkdir()
    (folder / "data" / "a.jsonl").write_text(jsonl(TEN[:5]))
    (folder / "elsewhere" / "b.jsonl").write_text(jsonl(TEN[5:]))
    (folder / "data" / "linked").symlink_to(folder / "elsewhere")
    (folder / "data" / "loop").symlink_to(folder / "data")
    (folder / "data" / "again").symlink_to(folder / "data")


def jsonl_file(content: bytes, **more: Any) -> dict[str, Any]:
    return {"files": {"data.jsonl": content}, "source": {"kind": "jsonl", "path": "./data.jsonl", **more}}


def csv_file(content: bytes, name: str = "data.csv", **more: Any) -> dict[str, Any]:
    return {"files": {name: content}, "source": {"kind": "csv", "path": f"./{name}", **more}}


def text_file(content: bytes, **more: Any) -> dict[str, Any]:
    return {"files": {"data.txt": content}, "source": {"kind": "text", "path": "./data.txt", "unit": "line", **more}}


def parquet_file(content: bytes, **more: Any) -> dict[str, Any]:
    return {"files": {"data.parquet": content}, "source": {"kind": "parquet", "path": "./data.parquet", **more}}


GOOD = jsonl(TEN).encode()
LINES = "\n".join(UMLAUTS)
# The file of the report, byte for byte: one value `he\xffllo`, in a column of strings.
ARROW_29635 = bytes(
    [
        80, 65, 82, 49, 21, 6, 21, 22, 21, 22, 92, 21, 2, 21, 0, 21, 2, 21, 0, 21, 4, 21, 0, 18, 28, 54, 0, 40, 5, 104,
        101, 255, 108, 111, 24, 5, 104, 101, 255, 108, 111, 0, 0, 0, 3, 1, 5, 0, 0, 0, 104, 101, 255, 108, 111, 38, 110,
        28, 21, 12, 25, 37, 6, 0, 25, 24, 2, 99, 49, 21, 0, 22, 2, 22, 102, 22, 102, 38, 8, 60, 54, 0, 40, 5, 104, 101,
        255, 108, 111, 24, 5, 104, 101, 255, 108, 111, 0, 0, 0, 21, 4, 25, 44, 72, 4, 114, 111, 111, 116, 21, 2, 0, 21,
        12, 37, 2, 24, 2, 99, 49, 37, 0, 76, 28, 0, 0, 0, 22, 2, 25, 28, 25, 28, 38, 110, 28, 21, 12, 25, 37, 6, 0, 25,
        24, 2, 99, 49, 21, 0, 22, 2, 22, 102, 22, 102, 38, 8, 60, 54, 0, 40, 5, 104, 101, 255, 108, 111, 24, 5, 104,
        101, 255, 108, 111, 0, 0, 0, 22, 102, 22, 2, 0, 40, 44, 65, 114, 114, 111, 119, 50, 32, 45, 32, 78, 97, 116,
        105, 118, 101, 32, 82, 117, 115, 116, 32, 105, 109, 112, 108, 101, 109, 101, 110, 116, 97, 116, 105, 111, 110,
        32, 111, 102, 32, 65, 114, 114, 111, 119, 0, 130, 0, 0, 0, 80, 65, 82, 49,
    ]
)  # fmt: skip

CASES: dict[str, Case] = {
    # Encodings
    "text in UTF-8 with a mark": Case(**text_file(codecs.BOM_UTF8 + LINES.encode()), rows=10, kept=UMLAUTS),
    "text in UTF-16 with a mark": Case(**text_file(LINES.encode("utf-16")), rows=10, kept=UMLAUTS),
    "text in UTF-16 BE with a mark": Case(
        **text_file(codecs.BOM_UTF16_BE + LINES.encode("utf-16-be")), rows=10, kept=UMLAUTS
    ),
    "text in UTF-16 LE without a mark": Case(**text_file(LINES.encode("utf-16-le")), rows=10, kept=UMLAUTS),
    "Chinese in UTF-16 BE without a mark": Case(
        **text_file("\n".join(CHINESE * 5).encode("utf-16-be")), rows=50, kept=CHINESE * 5
    ),
    "Russian in UTF-16 LE without a mark": Case(
        **text_file("\n".join(RUSSIAN).encode("utf-16-le")), rows=10, kept=RUSSIAN
    ),
    "Thai in UTF-16 BE without a mark": Case(**text_file("\n".join(THAI).encode("utf-16-be")), rows=10, kept=THAI),
    "Thai in UTF-16 BE without a mark, as the recipe says": Case(
        **jsonl_file(jsonl(THAI).encode("utf-16-be"), encoding="utf-16"), rows=10, kept=THAI
    ),
    "CSV in UTF-32 without a mark": Case(**csv_file(table(UMLAUTS).encode("utf-32-be")), rows=10, kept=UMLAUTS),
    "UTF-8 where the recipe says UTF-16": Case(**text_file(LINES.encode(), encoding="utf-16"), rows=10, kept=UMLAUTS),
    "zero bytes between the words of UTF-8": Case(
        **text_file("\n".join(each.replace(" ", "\0 ") for each in TEN).encode()), rows=10
    ),
    "text in UTF-32 with a mark": Case(**text_file(LINES.encode("utf-32")), rows=10, kept=UMLAUTS),
    "JSON lines in UTF-16": Case(**jsonl_file(jsonl(CHINESE).encode("utf-16")), rows=10, kept=CHINESE),
    "JSON lines in UTF-16 LE without a mark": Case(
        **jsonl_file(jsonl(CHINESE).encode("utf-16-le")), rows=10, kept=CHINESE
    ),
    "CSV in UTF-16, tabs, as Excel saves Unicode text": Case(
        **csv_file(table(UMLAUTS, "\t", end="\r\n").encode("utf-16")), rows=10, kept=UMLAUTS
    ),
    "a character of UTF-16 that has the byte of a line end": Case(
        **text_file("\n".join([*TEN, "Ċ and ਊ and 上 end in the byte 0x0a"]).encode("utf-16")),
        rows=11,
        kept=[*TEN, "Ċ and ਊ and 上 end in the byte 0x0a"],
    ),
    "half a surrogate pair in UTF-16": Case(
        **text_file(codecs.BOM_UTF16_LE + "\n".join([*TEN, "half \ud83d pair"]).encode("utf-16-le", "surrogatepass")),
        rows=11,
        dropped=[("data.txt:11", "not utf-16-le")],
    ),
    "UTF-16 that breaks off within a character": Case(
        **text_file("\n".join([*TEN, "the end"]).encode("utf-16")[:-1]),
        rows=11,
        dropped=[("data.txt:11", "not utf-16-le")],
    ),
    "text in Latin-1": Case(**text_file(LINES.encode("latin-1"), encoding="latin-1"), rows=10, kept=UMLAUTS),
    "CSV in cp1252": Case(
        **csv_file(table([f"{each} § für 5 €" for each in TEN]).encode("cp1252"), encoding="cp1252"),
        rows=10,
        kept=[f"{each} § für 5 €" for each in TEN],
    ),
    "one line of Latin-1 among UTF-8": Case(
        **text_file("\n".join(TEN).encode() + b"\ncaf\xe9 au lait\n"),
        rows=11,
        dropped=[("data.txt:11", "not utf-8: byte 3 is 0xe9")],
    ),
    "a CSV row of Latin-1 among UTF-8": Case(
        **csv_file(table(TEN).encode() + b"10,caf\xe9 au lait\n"),
        rows=11,
        dropped=[("data.csv:12", "not utf-8: 0xe9")],
    ),
    "zero bytes in UTF-8": Case(
        **text_file("\n".join([*TEN, "zero\0 byte"]).encode()), rows=11, kept=[*TEN, "zero byte"]
    ),
    "files put one behind the other, with the mark of each": Case(
        **jsonl_file((codecs.BOM_UTF8 + jsonl(TEN[:5]).encode()) + (codecs.BOM_UTF8 + jsonl(TEN[5:]).encode())),
        rows=10,
    ),
    # One bad row
    "a quotation mark that is never closed, in the middle of a CSV": Case(
        **csv_file(table([*TEN[:3], '"never closed', *TEN[3:]]).encode()),
        rows=11,
        dropped=[("data.csv:5", "a quotation mark that is never closed")],
    ),
    "quotation marks inside a quoted field": Case(
        **csv_file(table([*TEN[:3], '"a "bad" field"', *TEN[3:]]).encode()),
        rows=11,
        dropped=[("data.csv:5", "a quotation mark inside a field")],
    ),
    "an open mark, closed by the mark of a later row": Case(
        **csv_file(
            table([*TEN[:3], '"opened', *TEN[3:6], 'closed"', *TEN[6:]], header="id,text,n")
            .replace("\n", ",1\n")
            .replace("n,1", "n", 1)
            .encode()
        ),
        rows=12,
        kept=[*TEN, 'closed"'],
        dropped=[("data.csv:5", "a quotation mark")],
    ),
    "a good quoted field over several lines": Case(
        **csv_file(table([*TEN, '"a text\nof ""three""\nlines"']).encode()),
        rows=11,
        kept=[*TEN, 'a text\nof "three"\nlines'],
    ),
    "rows with a field too many and too few": Case(
        **csv_file(table(TEN).encode() + b"10,a,b\n11\n"),
        rows=12,
        dropped=[("data.csv:12", "not the 2 fields"), ("data.csv:13", "not the 2 fields")],
    ),
    "an index without a name, as pandas writes it": Case(**csv_file(table(TEN, header=",text").encode()), rows=10),
    "a broken line of JSON": Case(
        **jsonl_file(GOOD + b'{"text": "half\n' + jsonl(["the end is here"]).encode()),
        rows=12,
        kept=[*TEN, "the end is here"],
        dropped=[("data.jsonl:11", "not JSON")],
    ),
    "JSON values of other types": Case(
        **jsonl_file(GOOD + b'null\n7\n"text"\n{"text": 7}\n{"text": true}\n'),
        rows=15,
        dropped=[
            ("data.jsonl:11", "null, not an object"),
            ("data.jsonl:12", "a number, not an object"),
            ("data.jsonl:13", "text, not an object"),
            ("data.jsonl:14", "'text' is int"),
            ("data.jsonl:15", "'text' is bool"),
        ],
    ),
    "a number of 5,000 digits": Case(
        **jsonl_file(b'{"n": %s}\n' % (b"1" * 5000) + GOOD),
        rows=11,
        dropped=[("data.jsonl:1", "a number too long")],
    ),
    "deep nesting": Case(
        **jsonl_file(GOOD + b'{"text":' * 3000 + b"\n" + GOOD),
        rows=21,
        kept=TEN * 2,
        dropped=[("data.jsonl:11", "not JSON")],
    ),
    "a row of nothing but a null": Case(
        **jsonl_file(GOOD + b'{"text": null}\n'), rows=11, dropped=[("data.jsonl:11", "too short")]
    ),
    "a Parquet string that is not UTF-8": Case(
        **parquet_file(wrong_utf8(TEN, b"caf\xe9 au lait")),
        rows=11,
        dropped=[("data.parquet:11", "not utf-8: byte 3 is 0xe9")],
    ),
    "Parquet texts in a binary column": Case(
        **parquet_file(parquet({"text": pa.array([*(each.encode() for each in UMLAUTS), b"caf\xe9"], pa.binary())})),
        rows=11,
        kept=UMLAUTS,
        dropped=[("data.parquet:11", "'text' is not utf-8: byte 3 is 0xe9")],
    ),
    "Parquet with a damaged row group": Case(
        damaged_group,
        {"kind": "parquet", "path": "./data.parquet"},
        rows=30,
        kept=[text(number) for number in (*range(10), *range(20, 30))],
        dropped=[(f"data.parquet:{number}", "cannot be read") for number in range(11, 21)],
    ),
    "dictionary and large strings in Parquet": Case(
        **parquet_file(
            parquet(
                {"text": pa.array(TEN, pa.large_string()), "kind": pa.array(["document"] * 10).dictionary_encode()}
            ),
            columns={"text": "text", "role": "kind"},
        ),
        rows=10,
    ),
    "names of columns with dots, as pandas flattens JSON": Case(
        **parquet_file(
            parquet({"doc.text": TEN, "doc": [{"n": 1}] * 10, "doc.lic.name": ["MIT"] * 10}),
            columns={"text": "doc.text", "licence": "doc.lic.name"},
        ),
        rows=10,
    ),
    "names of columns with dots in a CSV of Excel": Case(
        **csv_file(table(TEN, ";", "doc.id,doc.text").encode(), columns={"text": "doc.text"}), rows=10
    ),
    "a Lance table with a damaged file": Case(
        damaged_fragment,
        {"kind": "lance", "path": "./t.lance"},
        rows=30,
        kept=[text(number) for number in (*range(10), *range(20, 30))],
        dropped=[(f"t:{number}", "cannot be read") for number in range(11, 21)],
    ),
    "a map and a struct in Parquet": Case(
        **parquet_file(
            parquet(
                {
                    "doc": [{"body": each} for each in TEN],
                    "meta": pa.array([[("lang", "en")]] * 10, pa.map_(pa.string(), pa.string())),
                }
            ),
            columns={"text": "doc.body", "section": "meta.lang"},
        ),
        rows=10,
    ),
    # Quoting
    "TSV without quoting, fields that begin with a mark": Case(
        **csv_file(table([*TEN[:4], '"Wow', *TEN[4:8], '"So he said', *TEN[8:]], "\t").encode(), "data.tsv"),
        rows=12,
        kept=[*TEN, '"Wow', '"So he said'],
    ),
    "TSV without quoting, a mark at the beginning and one at the end": Case(
        **csv_file(table([*TEN[:4], '"Wow', *TEN[4:8], 'wow"', *TEN[8:]], "\t").encode(), "data.tsv"),
        rows=12,
        kept=[*TEN, '"Wow', 'wow"'],
    ),
    "TSV with quoting, as pandas writes it": Case(
        **csv_file(table([*TEN, '"a ""quoted""\tword"'], "\t").encode(), "data.tsv"),
        rows=11,
        kept=[*TEN, 'a "quoted" word'],
    ),
    "commas without quoting": Case(
        **csv_file(table([*TEN, '"opened', 'closed"']).encode(), quoting="none"),
        rows=12,
        kept=[*TEN, '"opened', 'closed"'],
    ),
    "a single column whose texts have commas": Case(
        **csv_file(b"text\n" + "".join(f"{each}, he said\n" for each in TEN).encode() + b'"quoted, too"\n'),
        rows=11,
        kept=[*(f"{each}, he said" for each in TEN), "quoted, too"],
    ),
    # Excel
    "CSV of Excel: a mark, semicolons, CRLF": Case(
        **csv_file(codecs.BOM_UTF8 + table(UMLAUTS, ";", "text,id", "\r\n").encode(), columns={"text": "id"}),
        rows=10,
        kept=UMLAUTS,
    ),
    "the first column after a mark is the text": Case(
        **csv_file(codecs.BOM_UTF8 + "".join(["text;id\r\n", *(f"{each};1\r\n" for each in TEN)]).encode()), rows=10
    ),
    "Excel's line about the delimiter": Case(**csv_file(b"sep=|\r\n" + table(TEN, "|").encode()), rows=10),
    "line ends of an old Macintosh": Case(**csv_file(table(TEN, end="\r").encode()), rows=10),
    "line feeds in the texts of rows that end with carriage returns": Case(
        **csv_file(table([f'"{each}\nin two lines"' for each in TEN], end="\r").encode()),
        rows=10,
        kept=[f"{each}\nin two lines" for each in TEN],
    ),
    "a file of an old Macintosh with lines of another system behind it": Case(
        **csv_file(table(TEN[:5], end="\r").encode() + b"".join(b"5,%s\n" % each.encode() for each in TEN[5:])),
        rows=10,
    ),
    "lines of text of an old Macintosh": Case(**text_file("\r".join(UMLAUTS).encode()), rows=10, kept=UMLAUTS),
    "paragraphs of an old Macintosh in UTF-16": Case(
        **text_file("\r\r".join(UMLAUTS).encode("utf-16"), unit="paragraph"), rows=10, kept=UMLAUTS
    ),
    "JSON lines of an old Macintosh": Case(**jsonl_file(GOOD.replace(b"\n", b"\r")), rows=10),
    "quoted names of columns with blanks": Case(**csv_file(table(TEN, header='"id", text').encode()), rows=10),
    # JSON
    "a JSON array on one line": Case(**jsonl_file(json.dumps([{"text": each} for each in TEN]).encode()), rows=10),
    "an indented JSON array with a broken element": Case(
        **jsonl_file(
            json.dumps([{"text": each} for each in TEN], indent=2)
            .replace('"text": "Sentence number 4', '"text: "Sentence number 4')
            .encode()
        ),
        rows=10,
        kept=[*TEN[:4], *TEN[5:]],
        dropped=[("data.jsonl:14", "not JSON")],
    ),
    "objects one behind the other on a line, also with commas": Case(
        **jsonl_file(
            GOOD.replace(b"}\n", b"}", 1).replace(b"}\n", b"},\n", 4) + b'{"text": "the end"} and more\n{"text": "cut'
        ),
        rows=13,
        kept=[*TEN, "the end"],
        dropped=[("data.jsonl:10", "not JSON"), ("data.jsonl:11", "not JSON")],
    ),
    "indented objects one after another": Case(
        **jsonl_file("".join(json.dumps({"text": each}, indent=1) + "\n" for each in TEN).encode()), rows=10
    ),
    "a list of texts per row": Case(
        **jsonl_file(
            json.dumps({"pos": TEN[:6]}).encode() + b"\n" + json.dumps({"pos": TEN[6:]}).encode(),
            columns={"text": "pos[]"},
        ),
        rows=10,
    ),
    "turns of a conversation": Case(
        **jsonl_file(
            json.dumps({"turns": [{"role": "user", "content": each} for each in TEN]}).encode(),
            columns={"text": "turns[].content"},
        ),
        rows=10,
    ),
    "half surrogates in every value": Case(
        **jsonl_file(
            GOOD.replace(b"}", b', "s": "\\ud83d", "l": "\\ude00"}') + b'{"\\ud83d": 1}\n',
            columns={"text": "text", "section": "s", "licence": "l"},
        ),
        rows=11,
        dropped=[("data.jsonl:11", "no text under 'text'; the row has ?")],
    ),
    # Files
    "what macOS adds": Case(
        {
            "data/a.jsonl": GOOD,
            "data/._a.jsonl": b"\x00\x05\x16\x07\x00",
            "data/.DS_Store": b"\x00\x00\x00\x01Bud1",
            "data/__MACOSX/._a.jsonl": b"\x00\x05\x16\x07\x00",
            "data/__MACOSX/b.jsonl": b"\x00",
        },
        {"kind": "jsonl", "path": "./data"},
        rows=10,
    ),
    "a glob over what macOS adds": Case(
        {"data/a.jsonl": GOOD, "data/._a.jsonl": b"\x00\x05", "data/__MACOSX/b.jsonl": b"\x00"},
        {"kind": "jsonl", "path": "./**/*.jsonl"},
        rows=10,
    ),
    "suffixes in capitals": Case(
        {"data/A.JSONL": jsonl(TEN[:5]).encode(), "data/B.JSONL.GZ": gzip.compress(jsonl(TEN[5:]).encode())},
        {"kind": "jsonl", "path": "./data"},
        rows=10,
    ),
    "every way of packing": Case(
        {
            "data/a.jsonl.gz": gzip.compress(jsonl(TEN[:1]).encode()) + gzip.compress(jsonl(TEN[1:2]).encode()),
            "data/b.jsonl.bz2": bz2.compress(jsonl(TEN[2:4]).encode()),
            "data/c.jsonl.xz": lzma.compress(jsonl(TEN[4:6]).encode()),
            "data/d.jsonl.zst": packed("zstd", jsonl(TEN[6:8]).encode()),
            "data/e.jsonl.lz4": packed("lz4", jsonl(TEN[8:]).encode()),
        },
        {"kind": "jsonl", "path": "./data"},
        rows=10,
    ),
    "packed under a plain name, and plain under a packed one": Case(
        {"data/a.jsonl": gzip.compress(jsonl(TEN[:5]).encode()), "data/b.jsonl.gz": jsonl(TEN[5:]).encode()},
        {"kind": "jsonl", "path": "./data"},
        rows=10,
    ),
    "an archive that breaks off": Case(
        {"data/a.jsonl": GOOD, "data/b.jsonl.xz": lzma.compress(GOOD)[:-30]},
        {"kind": "jsonl", "path": "./data", "max_malformed": 0.5},
        rows=11,
        dropped=[("b.jsonl.xz", "cannot be read")],
    ),
    "links, also to the folder itself": Case(links, {"kind": "jsonl", "path": "./data"}, rows=10),
    "links under a glob": Case(links, {"kind": "jsonl", "path": "./data/**/*.jsonl"}, rows=10),
    # Public reports
    "polars: brackets in the name of a file": Case(
        {"[a].csv": table(TEN).encode()},
        {"kind": "csv", "path": "./[a].csv"},
        rows=10,
        report="https://github.com/pola-rs/polars/issues/18826",
    ),
    "polars: a mark before JSON lines of Azure": Case(
        **jsonl_file(codecs.BOM_UTF8 + GOOD.replace(b"\n", b"\r\n")),
        rows=10,
        report="https://github.com/pola-rs/polars/issues/15301",
    ),
    "pandas: leading quotes without closing ones": Case(
        **csv_file(b'id\ttext\tn\n3\tabc\t5.6\n4\t"abc"\t4.3\n5\t"error\t3.3\n', "bug.tsv"),
        rows=3,
        kept=["abc", "abc", '"error'],
        report="https://github.com/pandas-dev/pandas/issues/22661",
    ),
    "pandas: a mark alone in a column of two rows": Case(
        **csv_file(b'text\tb\tc\td\na1\tb1\tc1\td1\n"\tc\ty\tz\na3\tb3\tc3\td3\n"\td4\ts4\td4\n', "example.tsv"),
        rows=4,
        kept=["a1", '"', "a3", '"'],
        report="https://github.com/pandas-dev/pandas/issues/13860",
    ),
    "datasets: pairs of PAWS-X that begin with a mark": Case(
        **csv_file(
            b'id\tsentence1\tsentence2\tlabel\n1\t" The Wee Dev\tHe said " no " to it\t1\n2\tone\ttwo\t0\n'
            b'3\tThe "end\t"the end\t1\n4\tthree\tfour\t1\n',
            "train.tsv",
            columns={"text": ["sentence1", "sentence2"], "section": "label"},
        ),
        rows=4,
        kept=['" The Wee Dev\nHe said " no " to it', "one\ntwo", 'The "end\n"the end', "three\nfour"],
        report="https://github.com/huggingface/datasets/pull/1763",
    ),
    "datasets: carriage returns inside lines": Case(
        **text_file(b"".join(each.encode() + b" and\rmore\n" for each in TEN)),
        rows=10,
        kept=[f"{each} and\nmore" for each in TEN],
        report="https://github.com/huggingface/datasets/issues/622",
    ),
    "datasets: JSON in UTF-16": Case(
        {"t.json": json.dumps([{"text": each} for each in CHINESE], ensure_ascii=False).encode("utf-16")},
        {"kind": "jsonl", "path": "./t.json"},
        rows=10,
        kept=CHINESE,
        report="https://github.com/huggingface/datasets/pull/5969",
    ),
    "datasets: a byte of Windows in a line of JSON": Case(
        **jsonl_file(GOOD + b'{"text": "it costs 5 \xac of money"}\n'),
        rows=11,
        dropped=[("data.jsonl:11", "not utf-8: byte 21 is 0xac")],
        report="https://github.com/huggingface/datasets/issues/6641",
    ),
    "datasets: hidden files of macOS in an archive of JSON lines": Case(
        {"data/en-US.jsonl": GOOD, "data/._en-US.jsonl": b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X\xa3"},
        {"kind": "jsonl", "path": "./data/*.jsonl"},
        rows=10,
        report="https://github.com/alexa/massive/issues/8",
    ),
    "arrow: a file of indented JSON": Case(
        {"indent.json": json.dumps([{"text": each} for each in UMLAUTS], ensure_ascii=False, indent=4).encode()},
        {"kind": "jsonl", "path": "./indent.json"},
        rows=10,
        kept=UMLAUTS,
        report="https://github.com/apache/arrow/issues/40912",
    ),
    "arrow: a string of Parquet that is not UTF-8": Case(
        {"data/a.parquet": parquet({"c1": TEN}), "data/b.parquet": ARROW_29635},
        {"kind": "parquet", "path": "./data", "columns": {"text": "c1"}, "max_malformed": 0.5},
        rows=11,
        dropped=[("b.parquet:1", "not utf-8: byte 2 is 0xff")],
        report="https://github.com/apache/arrow/issues/29635",
    ),
    "CsvHelper: a mark at the end of a quoted field": Case(
        **csv_file(
            b'Id,Name,Price\n"123","Widget 1" ","34.56"\n"456","Widget 5"","42.00"\n"789","13" Widget","10.00"\n'
            b'"790","Widget 6","11.00"\n',
            columns={"text": "Name"},
        ),
        rows=4,
        kept=["Widget 6"],
        dropped=[("data.csv:2", "quotation mark"), ("data.csv:3", "quotation mark"), ("data.csv:4", "quotation mark")],
        report="https://github.com/JoshClose/CsvHelper/issues/1385",
    ),
}
