"""What an analyst sets of attribution: two seeds and some vars, read and checked before dbt sees them.

What lives here: what is allowed, and what a wrong value is told: the file, the row, the field, what is wrong and
the fix, all of it at once. What the settings do is in ``macros/domain/attribution.sql`` and in ``fit``.
"""

import csv
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeGuard

import yaml

from earmark.journeys.errors import AttributionError
from earmark.settings import PROJECT_ROOT

PROJECT_FILE: Final = "dbt_project.yml"
MODELS_SEED: Final = "seeds/attribution_models.csv"
CHANNELS_SEED: Final = "seeds/attribution_channels.csv"
DIMENSIONS: Final = ("campaign", "podcast", "episode", "ad_unit", "sponsor", "touch_type")
TREATMENTS: Final = ("direct", "excluded")
SIGNALS: Final = ("campaign_id", "promo_code", "vanity_url", "pixel", "survey")
LONGEST_LOOKBACK: Final = 90  # days; raw.campaigns allows no more
MOST_SAMPLES: Final = 10_000

_WEIGHTS: Final = ("first_weight", "middle_weight", "last_weight")
# The fields that a method needs; in all others its row is empty.
METHODS: Final[Mapping[str, tuple[str, ...]]] = {
    "first_touch": (),
    "last_touch": (),
    "last_non_direct": (),
    "linear": (),
    "position_based": _WEIGHTS,
    "time_decay": ("half_life_days",),
    "shapley": (),
    "markov": ("chain_order", "with_nulls"),
}
_MODEL_COLUMNS: Final = ("model", "method", *_WEIGHTS, "half_life_days", "chain_order", "with_nulls")
_CHANNEL_COLUMNS: Final = ("tenant_id", "dimension", "value", "treat_as", "reason")
_MODEL_NAME: Final = re.compile(r"[a-z0-9_]+")
_TENANT: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")  # as tenancy.tenants has it


class AttributionSettingsError(AttributionError):
    """Settings of attribution are wrong. The text has a line for each that is, with the fix."""


@dataclass(frozen=True, slots=True)
class AttributionSettings:
    """What the stage ``fit`` needs to know; the rest is read by dbt."""

    bootstrap_samples: int
    seed: int


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of a seed: its place in the file, and its fields."""

    place: str
    fields: Mapping[str, str]


def check_settings(root: Path = PROJECT_ROOT) -> AttributionSettings:
    """Read the settings of the project at ``root`` and check all of them.

    Raises:
        AttributionSettingsError: something is wrong.

    """
    problems: list[str] = []
    models = _read_seed(root, MODELS_SEED, _MODEL_COLUMNS, problems)
    channels = _read_seed(root, CHANNELS_SEED, _CHANNEL_COLUMNS, problems)
    variables = _read_variables(root, problems)
    if models is not None:
        problems += check_models(models)
    if channels is not None:
        problems += check_channels(channels)
    if variables is not None:
        known = None if models is None else {row.fields["model"]: row.fields["method"] for row in models}
        problems += [f"{PROJECT_FILE}, vars, {text}" for text in check_variables(variables, known)]
    if problems or variables is None:
        raise AttributionSettingsError("the settings of attribution are wrong:\n" + "\n".join(problems))
    return AttributionSettings(variables["attribution_bootstrap_samples"], variables["attribution_seed"])


def check_models(rows: Sequence[_Row]) -> Iterator[str]:
    """Yield what is wrong with the rows of the seed of models."""
    if not rows:
        yield f"{MODELS_SEED} has no row: add a model, such as last_touch,last_touch,,,,,,"
    for name, count in Counter(row.fields["model"] for row in rows).items():
        if name and count > 1:
            places = [row.place.rpartition(", ")[2] for row in rows if row.fields["model"] == name]
            yield f"{MODELS_SEED}, {' and '.join(places)}, model: {name} is there {count} times; keep one"
    for row in rows:
        yield from (f"{row.place}, {text}" for text in _check_model(row.fields))


def check_channels(rows: Sequence[_Row]) -> Iterator[str]:
    """Yield what is wrong with the rows of the seed of channels."""
    first: dict[tuple[str, ...], str] = {}
    for row in rows:
        fields = row.fields
        if fields["tenant_id"] and not _TENANT.fullmatch(fields["tenant_id"]):
            yield f"{row.place}, tenant_id: {fields['tenant_id']!r} is no tenant's id; leave it empty for all"
        if fields["dimension"] not in DIMENSIONS:
            yield f"{row.place}, dimension: {_instead(fields['dimension'], DIMENSIONS)}"
        if not fields["value"]:
            yield f"{row.place}, value: it is empty; give the id of the {fields['dimension'] or 'dimension'}"
        if fields["treat_as"] not in TREATMENTS:
            yield f"{row.place}, treat_as: {_instead(fields['treat_as'], TREATMENTS)}"
        key = (fields["tenant_id"], fields["dimension"], fields["value"])
        if key in first:
            yield f"{row.place}, value: {first[key]} says how to treat {key[2]!r} already; keep one of them"
        first.setdefault(key, row.place.rpartition(", ")[2])


def check_variables(variables: Mapping[str, Any], models: Mapping[str, str] | None) -> Iterator[str]:
    """Yield what is wrong with the vars; ``models`` are the methods by model, None where they are not known."""
    for name, check in _VARIABLES.items():
        if name not in variables:
            yield f"{name}: it is missing; {_DEFAULTS[name]} is how it ships"
        else:
            yield from (f"{name}: {text}" for text in check(variables[name]))
    headline = variables.get("attribution_model")
    if models is not None and isinstance(headline, str) and headline:
        by_path = [name for name, method in models.items() if method != "markov"]
        if headline not in models:
            yield f"attribution_model: {_instead(headline, by_path)} (they are in {MODELS_SEED})"
        elif headline not in by_path:
            yield (
                f"attribution_model: {headline} is fitted monthly and has no credit of a day; "
                f"choose from {', '.join(by_path)}"
            )
    reach, windows = variables.get("attribution_max_lookback_days"), variables.get("attribution_windows_days")
    if _is_whole(reach) and reach > 0 and isinstance(windows, list):
        for days in windows:
            if _is_whole(days) and days > reach:
                yield (
                    f"attribution_windows_days: {days} is more than attribution_max_lookback_days ({reach}), "
                    "beyond which no touch is looked for; give a shorter window"
                )


def _check_model(fields: Mapping[str, str]) -> Iterator[str]:
    name, method = fields["model"], fields["method"]
    if not name:
        yield "model: it is empty; name the model, in letters a to z, digits and _"
    elif not _MODEL_NAME.fullmatch(name):
        yield f"model: {name!r} has other characters than a to z, 0 to 9 and _; name it {_plain(name)}"
    if method not in METHODS:
        yield f"method: {_instead(method, tuple(METHODS))}"
        return
    for field in _MODEL_COLUMNS[2:]:
        text = fields[field]
        if field not in METHODS[method]:
            if text:
                users = ", ".join(other for other, needed in METHODS.items() if field in needed)
                yield f"{field}: it is {text}, but {method} has none; leave it empty (it is of {users})"
        elif not text:
            yield f"{field}: {method} needs it; give {_ALLOWED[field]}"
        elif not _FIELDS[field](text):
            yield f"{field}: it is {text!r}; give {_ALLOWED[field]}"
    if method == "position_based":
        weights = [_number(fields[field]) for field in _WEIGHTS]
        if all(weight >= 0 for weight in weights) and not math.isclose(sum(weights), 1, abs_tol=1e-9):
            given = " + ".join(fields[field] for field in _WEIGHTS)
            yield f"{', '.join(_WEIGHTS)}: {given} is {sum(weights):g}; give three that sum to 1"


_ALLOWED: Final = {
    **dict.fromkeys(_WEIGHTS, "a number from 0 to 1"),
    "half_life_days": "a number of days above 0, such as 7",
    "chain_order": "a whole number from 1 to 9",
    "with_nulls": "true or false",
}
_FIELDS: Final[Mapping[str, Callable[[str], bool]]] = {
    **dict.fromkeys(_WEIGHTS, lambda text: 0 <= _number(text) <= 1),
    "half_life_days": lambda text: 0 < _number(text) < math.inf,
    "chain_order": lambda text: re.fullmatch("[1-9]", text) is not None,
    "with_nulls": lambda text: text.lower() in ("true", "false"),
}


def _check_windows(value: object) -> Iterator[str]:
    if not isinstance(value, list) or not value:
        yield f"it is {_shown(value)}; give a list of days, such as [1, 7, 14, 30]"
        return
    for days in value:
        if not _is_whole(days) or days < 1:
            yield f"{_shown(days)} is no window; give whole days from 1 on"
    for days, count in Counter(map(repr, value)).items():
        if count > 1:
            yield f"{days} is there {count} times; give each window once"


def _check_transforms(value: object) -> Iterator[str]:
    allowed = "collapse, first, distinct, drop:CHANNEL"
    if not isinstance(value, list):
        yield f"it is {_shown(value)}; give a list of {allowed}, or []"
        return
    for transform in value:
        known = isinstance(transform, str) and re.fullmatch(r"collapse|first|distinct|drop:.+", transform)
        if not known:
            yield f"there is no transform {_shown(transform)}; choose from {allowed}"


def _check_precedence(value: object) -> Iterator[str]:
    if not isinstance(value, list) or sorted(map(str, value)) != sorted(SIGNALS):
        yield f"it is {_shown(value)}; list {', '.join(SIGNALS)}, each once, the strongest first"


def _whole(lowest: int, highest: int | None = None) -> Callable[[object], Iterator[str]]:
    def check(value: object) -> Iterator[str]:
        if not _is_whole(value) or value < lowest or (highest is not None and value > highest):
            up_to = "on" if highest is None else f"to {highest}"
            yield f"it is {_shown(value)}; give a whole number from {lowest} {up_to}"

    return check


def _check_dimension(value: object) -> Iterator[str]:
    if value not in DIMENSIONS:
        yield _instead(value, DIMENSIONS)


def _check_flag(value: object) -> Iterator[str]:
    if not isinstance(value, bool):
        yield f"it is {_shown(value)}; give true or false"


def _check_name(value: object) -> Iterator[str]:
    if not isinstance(value, str) or not value:
        yield f"it is {_shown(value)}; give the name of a model of {MODELS_SEED}"


_VARIABLES: Final[Mapping[str, Callable[[object], Iterator[str]]]] = {
    "attribution_max_lookback_days": _whole(1, LONGEST_LOOKBACK),
    "attribution_windows_days": _check_windows,
    "attribution_model": _check_name,
    "attribution_dimension": _check_dimension,
    "attribution_path_transforms": _check_transforms,
    "attribution_cut_at_conversion": _check_flag,
    "signal_precedence": _check_precedence,
    "identity_max_households": _whole(1),
    "attribution_bootstrap_samples": _whole(0, MOST_SAMPLES),
    "attribution_seed": _whole(0),
}
_DEFAULTS: Final = {
    "attribution_max_lookback_days": "90",
    "attribution_windows_days": "[1, 7, 14, 30]",
    "attribution_model": "last_touch",
    "attribution_dimension": "campaign",
    "attribution_path_transforms": "[]",
    "attribution_cut_at_conversion": "false",
    "signal_precedence": "[campaign_id, promo_code, vanity_url, pixel, survey]",
    "identity_max_households": "10",
    "attribution_bootstrap_samples": "200",
    "attribution_seed": "0",
}


def _read_seed(root: Path, name: str, columns: Sequence[str], problems: list[str]) -> list[_Row] | None:
    """Return the rows of a seed; None, and why, where it cannot be read as rows of these columns."""
    try:
        with (root / name).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            lines = [(reader.line_num, line) for line in reader if line]
    except OSError:
        problems.append(f"{name} is missing; put it back, with the columns {', '.join(columns)}")
        return None
    except (UnicodeDecodeError, csv.Error) as error:
        problems.append(f"{name} is no CSV in UTF-8 ({error}); save it as that")
        return None
    if wrong := _wrong_columns(header, columns):
        problems.append(f"{name}, row 1, {wrong}; the columns are {', '.join(columns)}")
        return None
    rows = []
    for number, line in lines:
        if len(line) != len(header):
            problems.append(
                f"{name}, row {number}: it has {len(line)} fields instead of {len(header)}; put text that holds a "
                "comma in quotes"
            )
            continue
        fields = dict(zip(header, line, strict=True))
        rows.append(_Row(f"{name}, row {number}", fields))
        problems += [
            f"{name}, row {number}, {field}: {text!r} has spaces around it; take them out"
            for field, text in fields.items()
            if text != text.strip()
        ]
    return rows


def _wrong_columns(header: Sequence[str], columns: Sequence[str]) -> str | None:
    if unknown := [column for column in header if column not in columns]:
        return f"{unknown[0] or 'a column without a name'}: there is no such column; take it out"
    if missing := [column for column in columns if column not in header]:
        return f"{missing[0]}: the column is missing; add it"
    if len(header) > len(columns):
        twice = next(column for column, count in Counter(header).items() if count > 1)
        return f"{twice}: the column is there twice; keep one"
    return None


def _read_variables(root: Path, problems: list[str]) -> Mapping[str, Any] | None:
    try:
        project = yaml.safe_load((root / PROJECT_FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problems.append(f"{PROJECT_FILE} cannot be read: {' '.join(str(error).split())}")
        return None
    variables = project.get("vars") if isinstance(project, dict) else None
    if not isinstance(variables, dict):
        problems.append(f"{PROJECT_FILE} has no vars; add them as it ships")
        return None
    return variables


def _instead(value: object, allowed: Sequence[str]) -> str:
    return f"{'it is empty' if value == '' else f'there is no {_shown(value)}'}; choose from {', '.join(allowed)}"


def _shown(value: object) -> str:
    """Return the value as YAML has it, texts in quotes."""
    if value is None:
        return "empty"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_") or "my_model"


def _number(text: str) -> float:
    """Return the number, nan where the text is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
