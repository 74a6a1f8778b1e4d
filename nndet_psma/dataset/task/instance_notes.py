"""What may stand beside the classes in the JSON of a case: stations of its instances, and classes that nobody knows."""

from __future__ import annotations

import math
from typing import Any

from nndet_psma.core.atomic import read_json
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.cases import RawCase


def read_stations(case: RawCase) -> dict[int, str] | None:
    """Station by instance id from ``{"stations": {"1": "left obturator"}}``; None where the key is not there.

    Raises:
        UserError: it is no such mapping.
    """
    found = _mapping(case, "stations", '{"stations": {"1": "left obturator"}}')
    return None if found is None else {number: str(name).strip() for number, name in found.items()}


def read_unknown(case: RawCase) -> set[int]:
    """Instances whose class is not known: ``{"status": {"3": null}}``.

    Raises:
        UserError: the key is no mapping, or holds something else than null: classes stand in ``instances``.
    """
    found = _mapping(case, "status", '{"status": {"3": null}}') or {}
    wrong = next((number for number, value in found.items() if value is not None), None)
    if wrong is not None:
        raise UserError(
            f"the status of instance {wrong} is not null",
            file=case.instances,
            expected='{"status": {"3": null}} for instances of unknown class',
            found=repr(found[wrong])[:60],
            remedy="Write known classes into 'instances'",
        )
    return set(found)


def read_measured(case: RawCase) -> dict[int, dict[str, float]]:
    """What else was measured of the instances: ``{"measured": {"detector_score": {"1": 0.7}}}``, by instance and name.

    Raises:
        UserError: it is no such mapping, or a value is no finite number.
    """
    content = {} if case.instances is None else read_json(case.instances)
    names = content.get("measured", {}) if isinstance(content, dict) else {}
    found: dict[int, dict[str, float]] = {}
    for name, values in names.items() if isinstance(names, dict) else [("measured", None)]:
        numbers = values.items() if isinstance(values, dict) else [("", None)]
        for number, value in numbers:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is None or not (str(number).isdecimal() and is_number and math.isfinite(value)):
                raise UserError(
                    f"'measured' holds no numbers under {str(name)[:60]!r}",
                    file=case.instances,
                    expected='{"measured": {"detector_score": {"1": 0.7}}}',
                    found=repr(values)[:60],
                    remedy="Correct the entry, or take it out",
                )
            found.setdefault(int(number), {})[str(name)] = float(value)
    return found


def _mapping(case: RawCase, key: str, example: str) -> dict[int, Any] | None:
    content = {} if case.instances is None else read_json(case.instances)
    found = content.get(key) if isinstance(content, dict) else None
    if found is None:
        return None
    if not isinstance(found, dict) or not all(str(number).isdecimal() for number in found):
        raise UserError(
            f"{key} {'are' if key.endswith('stations') else 'is'} no mapping",
            file=case.instances,
            expected=example,
            found=repr(found)[:60],
        )
    return {int(number): value for number, value in found.items()}
