"""Texts that somebody may send as an id, and what each is at every door: an id, or None, which is no id."""

from __future__ import annotations

_ZZ1 = (
    *("zz1", " zz1", "zz1  ", "\tzz1", "zz1\n", "\r\nzz1", "\x0bzz1\x0c", "zz1\x85", "\xa0zz1", "zz1\u3000"),
    *("\u2003zz1\u2009", "\u2028zz1\u2029", "zz1\u202f", "\u1680zz1", "\ufeffzz1", "\u200bzz1", "zz1\u200d"),
    *("\u202azz1\u202c", "\u2060 zz1 \u2060"),
)
_NONE = (
    *("", " ", "   ", "\t", "\n", "\xa0", "\u200b", "\ufeff", "\u3000 \u2028"),
    *(".", "..", " .", ".. ", "\xa0..\u200b", "/", "a/b", "../a", "a/"),
    *("a\x07b", "a\x00b", "\x00", "a\tb", "a\nb", "\x1fa", "a\x7f", "a\x9fb", "a\ufffdb"),
    *("x" * 129, "\U0001f600" * 129),
)
_AS_THEY_STAND = (
    *("...", ".a", "a.", "..a", "a..", "a", "ab", "x" * 128, "\U0001f600" * 128),
    *("Ann Lee", "a\xa0b", "a\u200bb", "a\u202cb", "Zo\xeb", "Zoe\u0308", "\u4e2d\u6587"),
    *("%", "%2e%2e", "%2F", "a%b", "a?b", "a#b", "a+b", "a&k=5", "a=b", "a;b", "a:b", "a@b", "a\\b"),
    *("{a}", "[a]", "a'b", 'a"b', "a,b", "a|b", "$a", "`a`", "~", "*"),
    *("NULL", "nan", "-1", "007", "1e3", "true", "None"),
)
NASTY_IDS: dict[str, str | None] = {
    **dict.fromkeys(_ZZ1, "zz1"),
    **dict.fromkeys(_NONE),
    **{text: text for text in _AS_THEY_STAND},
    f"  {'x' * 128}\u3000": "x" * 128,
}
HALF_CHARACTER = "\ud800"
"""What JSON may name and no file can hold: no id either."""
