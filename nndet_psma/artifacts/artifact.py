"""Reading and writing of artefacts: schema name and version in front, errors that name file and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, TypeVar

from nndet_psma.core.atomic import read_json, write_json
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import CHECKSUM, hash_json
from nndet_psma.core.schema import SchemaError, from_plain, to_plain

A = TypeVar("A", bound="Artifact")


class Artifact:
    """Base of the artefact dataclasses; subclasses set ``schema`` and ``version``.

    The file holds ``{"schema": ..., "version": ..., <fields>}``. A file of another version is refused: it was
    written by another release, and guessing would change results silently. Files that nobody edits by hand set
    ``sealed`` and end with ``"checksum"``: a bit that a disk has turned would be another number.
    """

    schema: ClassVar[str]
    version: ClassVar[int] = 1
    remade_by: ClassVar[str] = "the stage that writes it"
    sealed: ClassVar[bool] = False

    def to_json(self) -> dict[str, Any]:
        """Plain content including schema and version."""
        return {"schema": self.schema, "version": self.version, **to_plain(self)}

    def content_hash(self) -> str:
        """Hash of the content: what later artefacts record as ``made_from``."""
        return hash_json(self.to_json())

    def file_content(self) -> dict[str, Any]:
        """What stands in the file: :meth:`to_json`, and the checksum of it where the file has one."""
        content = self.to_json()
        return {**content, CHECKSUM: hash_json(content)} if self.sealed else content

    def write(self, file: Path) -> None:
        """Write atomically."""
        write_json(file, self.file_content())

    @classmethod
    def read(cls: type[A], file: Path) -> A:
        """Read and check a file.

        Raises:
            UserError: missing file, other schema or version, wrong type, unknown or missing key, contradiction, or
                other content than was written.
        """
        content = read_json(file)
        if not isinstance(content, dict) or content.get("schema") != cls.schema:
            raise UserError("is another kind of file", file=file, expected=f'"schema": "{cls.schema}"')
        if content.get("version") != cls.version:
            raise UserError(
                f"{cls.schema} of another schema version",
                file=file,
                expected=str(cls.version),
                found=str(content.get("version")),
                remedy=f"Run {cls.remade_by} again",
            )
        noted = content.pop(CHECKSUM, None) if cls.sealed else None
        if noted is not None and noted != hash_json(content):
            raise UserError(
                "differs from what was written: its checksum is another",
                file=file,
                remedy=f"Run {cls.remade_by} again; if you have edited the file, take the key {CHECKSUM} out",
            )
        return cls.parse({k: v for k, v in content.items() if k not in ("schema", "version")}, file)

    @classmethod
    def parse(cls: type[A], content: dict[str, Any], source: Path | str) -> A:
        """Build from plain content; ``source`` is named in errors."""
        try:
            return from_plain(cls, content)
        except (SchemaError, ValueError, OverflowError) as error:
            raise UserError(
                f"invalid {cls.schema}: {error}", file=source, remedy="Correct that key"
            ) from None
