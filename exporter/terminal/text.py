"""Text that is safe to print: everything shown comes from logs that anybody may have written to."""

from __future__ import annotations

VISIBLE = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
"""Characters that are common in honest texts, and what stands for them; all other unprintable ones are lost."""


def visible(text: str) -> str:
    r"""Return the text with nothing in it that a terminal obeys, or that nobody sees.

    Newline, return and tab become `\n`, `\r` and `\t`; blanks of any other width a blank; every other
    character that Unicode does not count as printable (controls, escapes, bidirectional overrides, zero-width
    characters, line separators, lone surrogates, private use) becomes U+FFFD.
    """
    if text.isprintable():
        return text

    return "".join(
        c if c.isprintable() else VISIBLE.get(c) or (" " if _is_blank(c) else "\ufffd") for c in text
    )


def _is_blank(c: str) -> bool:
    # the line and paragraph separators count as space, too
    return c.isspace() and c >= "\xa0" and c not in "\u2028\u2029"
