"""Show the comment behind a field as its description: `width: int  # pixels` documents `width` on the page api.md.

A Griffe extension, used by mkdocstrings (see mkdocs.yml).
"""

from __future__ import annotations

import io
import tokenize

from griffe import Attribute, Docstring, Extension


class FieldComments(Extension):
    """Turns the comment at the end of an attribute's last line into its docstring, if it has none."""

    def on_attribute_instance(self, *, attr: Attribute, **_) -> None:
        """Read the comment."""
        if attr.docstring is not None or attr.endlineno is None or isinstance(attr.filepath, list):
            return
        line = attr.lines_collection[attr.filepath][attr.endlineno - 1]
        if comment := _comment(line):
            attr.docstring = Docstring(comment, lineno=attr.endlineno, parent=attr)


def _comment(line: str) -> str:
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(line.strip()).readline))
    except (tokenize.TokenError, IndentationError, SyntaxError):
        return ""
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    return comments[-1].lstrip("# ") if comments else ""
