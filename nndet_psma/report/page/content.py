"""What a page is made of: sections of blocks. Plain data; :mod:`nndet_psma.report.page.page` turns it into HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Picture:
    """An embedded picture.

    Attributes:
        uri: data URI.
        size: width and height in pixels.
        alt: what it shows, for those who do not see it.
        caption: text below; "" for none.
    """

    kind: ClassVar[str] = "picture"
    uri: str
    size: tuple[int, int]
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its header.

    Attributes:
        caption: what the table tells.
        header: one text per column.
        rows: cells as texts.
        strong: rows to stress, by index.
    """

    kind: ClassVar[str] = "table"
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: Sequence[int] = ()


@dataclass(frozen=True)
class Note:
    """A paragraph; a ``warning`` is set apart."""

    kind: ClassVar[str] = "note"
    text: str
    warning: bool = False


@dataclass(frozen=True)
class Missing:
    """What could not be shown, and the command that makes it ("" when a command does not help)."""

    kind: ClassVar[str] = "missing"
    what: str
    command: str = ""


@dataclass(frozen=True)
class Tile:
    """One headline number: name, value, interval, and what it means."""

    name: str
    value: str
    interval: str
    meaning: str


@dataclass(frozen=True)
class Tiles:
    """Headline numbers side by side."""

    kind: ClassVar[str] = "tiles"
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Shown:
    """One finding in pictures.

    Attributes:
        title: heading.
        verdict: "hit", "miss", "false" or "none": sets the colour of the badge.
        badge: the verdict in words.
        pictures: the region and the close-up.
        lines: facts below.
    """

    title: str
    verdict: str
    badge: str
    pictures: Sequence[Picture]
    lines: Sequence[str]


@dataclass(frozen=True)
class Gallery:
    """Findings in pictures below a heading; ``legend`` shows what the colours mean."""

    kind: ClassVar[str] = "gallery"
    heading: str
    items: Sequence[Shown]
    legend: bool = False


@dataclass(frozen=True)
class Folded:
    """Blocks that stay closed until opened."""

    kind: ClassVar[str] = "folded"
    summary: str
    blocks: Sequence[Block]


Block = Picture | Table | Note | Missing | Tiles | Gallery | Folded


@dataclass(frozen=True)
class Section:
    """A heading (``key`` is its anchor) with blocks."""

    key: str
    title: str
    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True)
class Page:
    """The whole page; ``subtitle`` and ``disclaimer`` frame the sections, ``others`` are files that are linked to."""

    title: str
    subtitle: str
    disclaimer: str
    sections: Sequence[Section]
    others: Sequence[str] = ()
