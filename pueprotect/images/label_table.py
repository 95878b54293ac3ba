"""Reads a table that gives each image a label. No torch."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from pueprotect.errors import InputError

_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def read_labels(table: Path, root: Path, images: Sequence[str], others: Collection[str]) -> dict[str, str]:
    """The label of each image by its path; every image must have one row and every row must name an image.

    Args:
        table: a CSV file in UTF-8 with the columns path (relative to `root`) and label.
        root: the folder of the images.
        images: their POSIX paths, relative to `root`.
        others: paths of files below `root` that are no images to release.

    Raises:
        InputError: the table cannot be read or does not fit; the message names the line.
    """
    known, names = set(images), dict[str, str]()
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            _check_columns(table, reader.fieldnames or ())
            for row in reader:
                where = f"{table}, line {reader.line_num}"
                if not row["path"] or not row["label"] or None in row:
                    raise InputError(f"{where}: each row needs one path and one label; correct it.")
                path = PurePosixPath(row["path"]).as_posix()
                if path not in known:
                    raise InputError(f"{where}: {_misfit(path, root, known, others)}")
                if path in names:
                    raise InputError(f"{where}: {path} is listed twice; remove one of the rows.")
                names[path] = row["label"]
    except OSError as error:
        raise InputError(f"{table} cannot be read ({error.strerror}); check --labels.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} is not a CSV file in UTF-8 ({error}); save it in that format.") from error
    if missing := [path for path in images if path not in names]:
        raise InputError(f"{root / missing[0]} has no row in {table} ({len(missing)} lack one); add it.")
    return names


def _check_columns(table: Path, columns: Sequence[str]) -> None:
    if {"path", "label"} <= set(columns):
        return
    for sign, name in _OTHER_DELIMITERS.items():
        if len(columns) == 1 and {"path", "label"} <= set(columns[0].split(sign)):
            raise InputError(f"{table}, line 1: columns are separated by {name}; save the table with commas.")
    raise InputError(f"{table}, line 1: it must name the columns path,label.")


def _misfit(path: str, root: Path, known: Collection[str], others: Collection[str]) -> str:
    """What is wrong with a path that names no image, and what to do."""
    if path in others:
        return f"{path} is not an image that can be released; correct or remove the row."
    if (slashes := path.replace("\\", "/")) in known:
        return f"{path} has backslashes; write {slashes}."
    parts = PureWindowsPath(path).parts  # splits at both kinds of slashes, and knows drives
    ends = ("/".join(parts[start:]) for start in range(1, len(parts)))
    if (short := next((end for end in ends if end in known), "")) and parts[0] in (root.name, root.resolve().name):
        return f"{path} begins with the name of {root} itself; write {short}."
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute():
        example = f"such as {short}" if short else "such as CLASS/1.png"
        return f"{path} is an absolute path; write paths below {root}, {example}."
    return f"{path} is not below {root}; correct or remove the row."
