"""Text that is safe to print: everything shown comes from logs that anybody can write to."""

from __future__ import annotations

VISIBLE = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
"""Characters that are common in honest texts, and how to show them; other unprintable ones are
replaced.
"""


def visible(text: str) -> str:
    r"""Return the text without characters that control a terminal or are invisible.

    Newline, return and tab become `\n`, `\r` and `\t`; blanks of any other width a blank. Every
    other character that Unicode does not class as printable (controls, escapes, bidirectional
    overrides, zero-width characters, line separators, lone surrogates, private use) becomes U+FFFD.
    """
    if text.isprintable():
        return text

    return "".join(
        c if c.isprintable() else VISIBLE.get(c) or (" " if _is_blank(c) else "\ufffd") for c in text
    )


def _is_blank(c: str) -> bool:
    # the line and paragraph separators count as space, too
    return c.isspace() and c >= "\xa0" and c not in "\u2028\u2029"
