"""Pieces of text that have broken parsers, logs and terminals before. Pure.

`FORGED` opens what would be a line, a header or a log record of its own if a control character
before it were let through: whoever finds it at the start of a log's line has found a hole.
"""

FORGED = "forged-by-a-client"

# JSON tokens where a number should be; the first ones are JSON.
NUMBERS = (
    "0", "-0", "-0.0", "1e-999", "4.9e-324", "5e-325", "1.7976931348623157e308", "1e308", "-1e308",
    "1e999", "-1e999", "1e5000000000", "1E400", "340282356779733661637539395458142568448",
    "3.4028235677973366e38", "3.4028234663852886e38", "9007199254740993", "18446744073709551616",
    "-9223372036854775809", "9" * 400, "-" + "9" * 400, "1" + "0" * 400 + ".0", "0." + "3" * 400,
    "9" * 4000, "1795000000", "1795000000000", "1795000000.123456789012345678901234567890",
    "NaN", "nan", "Infinity", "-Infinity", "inf", "0x10", "01", "+1", ".5", "1.", "1e", "1e+",
    "--1",
    "1_000", "\N{ARABIC-INDIC DIGIT ONE}", "\N{FULLWIDTH DIGIT ONE}", "1,5", "1 2", "-", "1f", "1n",
)  # fmt: skip

# What stands between the quotes of a JSON string: escapes as they are sent.
TEXTS = (
    "", " ", "a/b", "../../etc/passwd", "..", ".", "//", "%2e%2e%2f", "%00", "%", "%zz", "a;b",
    "a?b#c",
    "x\\n" + FORGED, "x\\r\\n" + FORGED, "\\u000a" + FORGED, "\\u2028" + FORGED, "\\u0085" + FORGED,
    "\\u001b[31m" + FORGED, "\\u001b]0;" + FORGED + "\\u0007", "\\u009b2J" + FORGED,
    "\\b\\b\\b" + FORGED,
    "\\u0000", "a\\u0000b", "\x7f", "\N{RIGHT-TO-LEFT OVERRIDE}resu", "\N{RIGHT-TO-LEFT MARK}",
    "\N{ZERO WIDTH SPACE}", "\N{ZERO WIDTH NO-BREAK SPACE}", "e\N{COMBINING ACUTE ACCENT}" * 30,
    "\\ud800", "\\udc00", "\\udc00\\ud800", "\\ud83d\\ude00", "\\uD8", "\\u12g4", "\\x41", "\\",
    "\\u0041", "é" * 128, "é" * 129, "u" * 256, "u" * 257, "\N{GRINNING FACE}" * 64,
    "\N{GRINNING FACE}" * 65,
    "u" * 5000, "user_id", "' OR 1=1 --", "<script>alert(1)</script>", "${jndi:ldap://127.0.0.1/a}",
    "{{7*7}}", "$(reboot)", "%s%n%x", "\t", "\n", "\r", "\x00", "\x1b[2J",
)  # fmt: skip

VALUES = (
    "null", "true", "false", "[]", "{}", "[[]]", '""', '"1"', '{"":""}', '{"a":1,"a":2}', "[null]",
    "[" * 30 + "]" * 30, '{"a":' * 30 + "1" + "}" * 30, "[" * 1200 + "]" * 1200, "undefined", "nul",
    "TRUE", "'a'", "/**/1", "//", "", "[1,]", "{,}", "[,1]", '{"a"}', "\N{NO-BREAK SPACE}1",
)  # fmt: skip

# Bytes that mean something to one reader or another.
BYTES = (
    b"\x00", b"\xff", b"\xfe\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc0\xaf", b"\xc3",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\n", b"\r\n", b"\r", b"\\", b'"',
    b"'", b"{", b"}",
    b"[", b"]", b",", b":", b"-", b"e", b".", b"0", b"\x1b", b"\x80", b"\x7f", b"\xe2\x80\xa8",
    b"\xc1", b"\xc7\xff\x00", b"\xc9\xff\xff\xff\xff\x00", b"\xd4\x00\x00", b"\xdc\xff\xff",
    b"\xdd\xff\xff\xff\xff", b"\xde\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff", b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
    b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00",
    b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x00" * 8, b"\xff" * 8,
)  # fmt: skip
