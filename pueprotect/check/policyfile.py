"""Reads a policy file; an error message names the file, the line and the allowed values."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pueprotect.check.policy import AttackRules, AuditRules, CertifyRules, ImageRules, Policy, Waiver
from pueprotect.errors import InputError

Place = tuple[str | int, ...]

MOST_BYTES = 1 << 20
MOST_VALUES = 10_000  # keys and values
DEEPEST = 20

_SECTIONS: dict[str, type[BaseModel]]
_SECTIONS = {"certify": CertifyRules, "audit": AuditRules, "images": ImageRules, "waivers": Waiver}


@dataclass(frozen=True)
class PolicyFile:
    """A policy and the line of each of its keys.

    Attributes:
        path: as given on the command line.
        policy: the parsed content.
        sha256: lower-case hex digest of the file.
        lines: 1-based line of each key by its place, such as ("certify", "q").
    """

    path: Path
    policy: Policy
    sha256: str
    lines: dict[Place, int]

    def line_of(self, rule: str) -> int:
        """The line of the key behind a verdict's rule; 1 for rules without a key."""
        group, _, rest = rule.partition(".")
        if group == "waivers":
            found = [n for n, waiver in enumerate(self.policy.waivers) if waiver.rule == rest]
            return self.lines.get(("waivers", found[0]), 1) if found else 1
        name, _, limit = rest.partition(".")
        own = [("audit", "attacks", name, limit), ("audit", "attacks", name)] if group == "audit" else []
        places: list[Place] = [*own, (group, limit), (group, name), (group, "suite"), (group,)]
        return next((self.lines[place] for place in places if place in self.lines), 1)


def read_policy(path: Path) -> PolicyFile:
    """Read and check a policy file.

    Raises:
        InputError: it cannot be read, is not YAML, or is not a valid policy; the message names the line.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise InputError(f"{path} has more than {MOST_BYTES} bytes; name a policy file with --policy.")
        text = content.decode("utf-8")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); name a policy file with --policy (an example is "
            "examples/gate/pueprotect.yaml)."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; save it as UTF-8.") from error
    lines: dict[Place, int] = {}
    try:
        loader = _Loader(text, path)
        root = loader.get_single_node()
        if root is None:
            raise InputError(f"{path} is empty; a policy starts with: version: 1")
        _locate(root, (), lines, path)
        data = loader.construct_document(root)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        last = text.rstrip().count("\n")  # an error at the end is reported for the last line, not the one after it
        where = f", line {min(mark.line, last) + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise InputError(f"{path}{where}: not YAML ({problem}); fix the line.") from error
    except ValueError as error:  # a date such as 2027-02-31
        raise InputError(f"{path}: a value cannot be read ({error}); fix it.") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}, line 1: not a policy; it starts with: version: 1")
    try:
        policy = Policy.model_validate(data)
    except ValidationError as error:
        raise InputError(_sentence(path, error, lines)) from error
    return PolicyFile(path, policy, hashlib.sha256(content).hexdigest(), lines)


class _Loader(yaml.SafeLoader):
    """Refuses what makes a short file long to read: aliases, which may repeat each other, and deep or endless lists."""

    def __init__(self, text: str, path: Path) -> None:
        super().__init__(text)
        self.path, self.values, self.depth = path, 0, 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        where = f"{self.path}, line {event.start_mark.line + 1}"
        self.values += 1
        if getattr(event, "anchor", None) is not None:  # aliases have one too
            raise InputError(f"{where}: anchors (&) and aliases (*) are not allowed; write the value itself.")
        if self.values > MOST_VALUES:
            raise InputError(f"{where}: more than {MOST_VALUES} keys and values; a policy needs far fewer.")
        if self.depth == DEEPEST:
            raise InputError(f"{where}: more than {DEEPEST} levels of lists and keys; a policy needs far fewer.")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _locate(node: yaml.Node, place: Place, lines: dict[Place, int], path: Path) -> None:
    """Note the line of every key and list entry below `node`; a repeated key is an error."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(f"{path}, line {line}: a key is not a plain word; write one such as certify.")
            if value.tag.endswith(":null"):
                raise InputError(f"{path}, line {line}: {key.value} is empty; give it a value or remove it.")
            if (*place, key.value) in lines:
                raise InputError(f"{path}, line {line}: {key.value} is there twice; keep one of them.")
            lines[*place, key.value] = line
            _locate(value, (*place, key.value), lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for number, entry in enumerate(node.value):
            lines[*place, number] = entry.start_mark.line + 1
            _locate(entry, (*place, number), lines, path)


def _sentence(path: Path, error: ValidationError, lines: dict[Place, int]) -> str:
    """The message for the first error in the file."""

    def line(detail: Any) -> int:
        places = (detail["loc"][:end] for end in range(len(detail["loc"]), 0, -1))
        return next((lines[place] for place in places if place in lines), 1)

    detail = min(error.errors(include_url=False), key=line)
    loc: Place = detail["loc"]
    name = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    key, model = str(loc[-1]) if loc else "", _model_at(loc)
    keys, where = ", ".join(model.model_fields), f"{path}, line {line(detail)}"
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, model.model_fields, n=1)
        guess = f" (did you mean {near[0]}?)" if near else ""
        return f"{where}: unknown key {name}{guess}; allowed here: {keys}."
    field = model.model_fields.get(key)
    allowed = (field.description or "").rpartition(": ")[2] if field else f"keys {keys}"
    if detail["type"] == "missing":
        return f"{where}: {name} is missing; give {allowed}."
    if detail["type"] == "value_error":
        return f"{where}: {name or 'the policy'} {detail['ctx']['error']}."
    return f"{where}: {name} is {_shown(detail['input'])}; give {allowed}."


def _shown(value: object) -> str:
    if value is None:
        return "empty"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _model_at(loc: Place) -> type[BaseModel]:
    """The model whose key is the last part of `loc`."""
    if loc[:2] == ("audit", "attacks") and len(loc) > 3:
        return AttackRules
    return _SECTIONS[str(loc[0])] if len(loc) > 1 else Policy
